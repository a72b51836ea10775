"""What a page has drawn, as parts of a page that stands alone: pictures live, charts as SVG, tables, text, what was chosen."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any

import pandas as pd

from moescope import charts
from moescope.app.wording import clean, missing
from moescope.pictures import heat_map, scripts
from moescope.pictures.page import Part

ROWS = 200  # of a table
LEFT_OUT = ("popover", "button", "download_button", "dialog", "spinner", "skeleton", "toast")
CHOSEN = (
    "selectbox",
    "text_input",
    "text_area",
    "toggle",
    "checkbox",
    "multiselect",
    "number_input",
    "button_group",
    "radio",
    "slider",
)
Node = Any  # of Streamlit's test tree


def parts(node: Node) -> list[Part]:
    """Everything below a node; neighbours that were chosen stand in one line."""
    return list(_joined(_below(node)))


def _below(node: Node) -> Iterator[Part]:
    for child in (node.children[key] for key in sorted(node.children)):
        kind = getattr(child, "type", "")
        if kind not in LEFT_OUT:
            yield from _around(child, kind) if hasattr(child, "children") else _one(child, kind)


def _around(block: Node, kind: str) -> Iterator[Part]:
    """Columns stand beside each other; what is opened has its name above it."""
    columns = [block.children[key] for key in sorted(block.children)]
    if not any(getattr(child, "type", "") == "column" for child in columns):
        inside: list[Part] = parts(block)
        named = bool(getattr(block, "label", ""))
        if inside and named and kind in ("expander", "status"):
            yield Part(html=f"<h3>{escape(plain(block.label))}</h3>")
        yield from inside
        return
    found = [list(_below(child)) for child in columns]
    if all(part.root == "chosen" for some in found for part in some):
        yield from (part for some in found for part in some)
        return
    yield Part(root="bare", html='<div class="side">')
    for some in found:
        yield Part(root="bare", html="<div>")
        yield from _joined(iter(some))
        yield Part(root="bare", html="</div>")
    yield Part(root="bare", html="</div>")


def _joined(found: Iterator[Part]) -> Iterator[Part]:
    chosen: list[str] = []
    for part in found:
        if part.root == "chosen":
            chosen.append(part.html)
            continue
        if chosen:
            yield Part(html=f'<div class="set">{"".join(chosen)}</div>')
            chosen = []
        yield part
    if chosen:
        yield Part(html=f'<div class="set">{"".join(chosen)}</div>')


def _one(element: Node, kind: str) -> Iterator[Part]:
    if kind in CHOSEN:
        yield from _chosen(element)
    elif make := KINDS.get(kind):
        yield from (part for part in [make(element)] if part is not None)


def _chosen(element: Node) -> Iterator[Part]:
    value = getattr(element, "value", None)
    options, index = getattr(element, "options", None), getattr(element, "index", None)
    if isinstance(index, int) and options is not None and 0 <= index < len(options):
        value = options[index]  # as the page writes it
    value = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    if value in (None, "", False, []):
        return
    said = "" if value is True else f" <b>{escape(plain(str(value)))}</b>"
    yield Part(root="chosen", html=f"<span>{escape(plain(str(getattr(element, 'label', ''))))}{said}</span>")


def _html(element: Node) -> Part:
    """HTML of our own, in which text from data is escaped; links lead to pages that a file does not have."""
    return Part(html=re.sub(r"</?a\b[^>]*>", "", str(element.value)))


def _text(name: str) -> Callable[[Node], Part | None]:
    def made(element: Node) -> Part | None:
        words = str(element.value)
        return None if ":material/touch_app:" in words else Part(html=f'<p class="{name}">{marked(words)}</p>')  # no click here

    return made


def _code(element: Node) -> Part:
    return Part(html=f"<pre>{escape(str(element.value))}</pre>")


def _chart(element: Node) -> Part:
    """A chart of Vega-Lite with its data, drawn."""
    proto = element.proto
    spec = json.loads(proto.spec)
    sets = {one.name: one.data.data for one in proto.datasets}
    spec["datasets"] = {name: json.loads(_frame(data).to_json(orient="records")) for name, data in sets.items()}
    spec = {key: value for key, value in charts.unlinked(spec).items() if key not in ("padding", "usermeta")}
    spec |= {"width": spec.get("width", 520)} if "layer" in spec or "mark" in spec else {}
    spec["config"] = spec.get("config", {}) | {"background": "transparent"}
    return Part(html=f'<div class="chart">{charts.to_svg(spec)}</div>')


def _frame(data: bytes) -> pd.DataFrame:
    import pyarrow as pa

    return pa.ipc.open_stream(data).read_pandas()


def _table(element: Node) -> Part:
    """Rows as they are, numbers as the page's own columns write them."""
    frame, known = _said(element), json.loads(getattr(element.proto, "columns", "") or "{}")
    shown = [c for c in frame.columns if not known.get(str(c), {}).get("hidden")]
    names = {c: known.get(str(c), {}).get("label") or str(c).replace("_", " ") for c in shown}
    forms = {c: (known.get(str(c), {}).get("type_config") or {}).get("format") for c in shown}
    kinds = {c: ' class="n"' if pd.api.types.is_numeric_dtype(element.value[c]) else "" for c in shown}
    head = "".join(f"<th{kinds[c]}>{escape(clean(names[c], 60))}</th>" for c in shown)
    body = "".join(
        "<tr>" + "".join(f"<td{kinds[c]}>{_cell(v, forms[c])}</td>" for c, v in zip(shown, row, strict=True)) + "</tr>"
        for row in frame[shown].head(ROWS).itertuples(index=False)
    )
    more = f'<p class="cap">The first {ROWS} of {len(frame):,} rows.</p>' if len(frame) > ROWS else ""
    return Part(html=f'<div class="wide"><table class="frame"><tr>{head}</tr>{body}</table></div>{more}')


def _said(element: Node) -> pd.DataFrame:
    """The rows; shares as the page says them, which has words of its own for whole columns."""
    frame, packed = element.value, element.proto.arrow_data.styler.display_values
    if not packed:
        return frame
    words = _frame(packed)
    return frame.assign(**{c: words[c].to_numpy() for c in frame if words[c].astype(str).str.endswith(" %").any()})


def _cell(value: Any, form: str | None) -> str:
    if missing(value):
        return "–"
    if isinstance(value, bool | str) or (not isinstance(value, int | float) and not hasattr(value, "item")):
        return escape(clean(str(value), 200))
    if form and "%" in form:
        return escape(form % value)
    return f"{int(value):,}" if float(value).is_integer() else f"{float(value):.4g}"


def _component(element: Node) -> Part | None:
    """A picture of ours, as the browser draws it, without what a click would open."""
    proto = element.proto
    name = proto.component_name.rpartition("moescope_")[2]
    root = re.search(r'class="([\w-]+)"', proto.html_content)
    if not root or not re.fullmatch(r"[a-z_]+", name) or not scripts.HOME.joinpath(f"{name}.js").is_file():
        return Part(html='<p class="cap">A part of this page is drawn by the dashboard only.</p>')
    return Part(name, root[1], _without_clicks(json.loads(proto.json)))


def _without_clicks(data: Mapping[str, Any]) -> dict[str, Any]:
    words = [w for w in (data.get("subtitle") or "").split("; ") if w and not w.startswith(heat_map.CLICK)]
    return dict(data) | ({"click": False, "subtitle": "; ".join(words)} if "click" in data else {})


def plain(text: str) -> str:
    """Markdown as text: no icon, no escape, no mark."""
    return re.sub(r"\\(.)", r"\1", re.sub(r":material/\w+:\s*|\*\*|`", "", text or ""))


def marked(text: str) -> str:
    """Markdown as HTML, as much of it as our sentences use: bold, code, escapes, icons, which are left out."""
    out, bold = [], False
    for piece in re.split(r"(\\.|\*\*|`[^`]*`|:material/\w+:\s*)", text):
        if piece == "**":
            out.append("</b>" if bold else "<b>")
            bold = not bold
        elif len(piece) == 2 and piece[0] == "\\":
            out.append(escape(piece[1]))
        elif len(piece) > 1 and piece[0] == piece[-1] == "`":
            out.append(f"<code>{escape(piece[1:-1])}</code>")
        elif not piece.startswith(":material/"):
            out.append(escape(piece))
    return "".join(out) + "</b>" * bold


KINDS: dict[str, Callable[[Node], Part | None]] = {
    "html": _html,
    "markdown": _text("md"),
    "caption": _text("cap"),
    "text": _text("md"),
    "info": _text("said"),
    "warning": _text("said"),
    "success": _text("said"),
    "header": _text("md"),
    "subheader": _text("md"),
    "code": _code,
    "dataframe": _table,
    "arrow_data_frame": _table,
    "table": _table,
    "vega_lite_chart": _chart,
    "bidi_component": _component,
}
