"""The route of one token through all layers: experts, weights, entropy, margin, alternatives."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state, wording
from moescope.app.components.colored_tokens import colours
from moescope.app.parts import note_field, panels, pickers
from moescope.app.queries import next_best, store_access, token_routes
from moescope.charts import OTHER
from moescope.store import notes

Row = dict[str, Any]


def beside(run: int, token: int | None, forward: int | None = None) -> None:
    """The route of the chosen token beside its text, where it stays in sight; how to choose one, while there is none."""
    st.html('<div class="ms-beside"></div>')  # by it the page's style finds the column
    if token is None:
        st.caption(":material/touch_app: Click a token for its route through all layers; Tab, arrow keys and Enter do it too.")
    else:
        show(run, token, forward)


def show(run: int, token: int, forward: int | None = None) -> None:
    """Everything the store knows about one token's way, in one forward pass where the token has several."""
    about = token_routes.about(token, run)
    if about is None:
        panels.empty("This token is not in the run that is shown", "Click another token, or choose its run on the left.")
        return
    _title(about)
    path, sure, sql = token_routes.way(token, run, forward)
    if path.empty:
        panels.empty("No expert ran for this token", "It was looked at by no traced router, or dropped everywhere.")
        return
    _table(path, sure, token, run, forward)
    note_field.field(*notes.token(store_access.reader(), token), key="token")
    _chart(path, sql, token, run)


def _title(about: Row) -> None:
    name = about["unit"] if about["text"] is None else wording.visible(about["text"])
    place = (
        f"patch {about['y']}, {about['x']}"
        if about["unit"] != "text" and about["y"] is not None
        else f"position {about['position']}"
    )
    made = " · generated" if about["generated"] else ""
    words = [
        place + made,
        wording.markup(about["document"]),
        wording.markup(about["labels"] or "no labels"),
        f"token {about['token']}",
    ]
    st.html(f'<div class="ms-run"><b>Route of “{wording.markup(name)}”</b><span>{" · ".join(words)}</span></div>')


def _table(path: pd.DataFrame, sure: list[Row], token: int, run: int, forward: int | None) -> None:
    known = {(d["router"], d["iteration"]): d for d in sure}
    others = next_best.of(token, run, forward)
    peak = max([d["entropy"] or 0 for d in sure] + [1e-9])
    labels = pickers.labels(run)
    lines = []
    for key, group in reversed(list(path.groupby(["router", "iteration"], sort=False))):
        then = others[key].words if key in others else "–" if others else ""
        lines.append(_line(labels.get(int(key[0]), str(key[0])), group, known.get(key, {}), peak, then))
    more = "<th>next best</th>" if others else ""
    st.html(
        '<table class="ms-route"><tr><th>layer</th><th>experts by weight</th><th>entropy</th><th>margin</th>'
        f"{more}</tr>{''.join(lines)}</table>"
    )
    for words in next_best.sentences(others, labels):
        st.caption(panels.plain(words, 600))
    if not others:
        st.caption(
            "Alternatives need router logits of routers whose tokens choose experts: trace with `--logits 1` to have them."
        )


def _line(label: str, group: pd.DataFrame, sure: Row, peak: float, others: str) -> str:
    palette = colours(group["expert"].tolist(), int(group["experts"].iloc[0]))
    total = group["weight"].fillna(1).clip(lower=0).sum() or 1
    bars = "".join(_bar(a, palette.get(a.expert, OTHER), total) for a in group.itertuples())
    entropy = sure.get("entropy")
    meter = "–" if entropy is None else f'<span class="ms-meter" style="--v:{100 * entropy / peak:.0f}%"></span>{entropy:.2f}'
    margin = "–" if sure.get("margin") is None else f"{sure['margin']:.3f}"
    more = f"<td>{wording.markup(others)}</td>" if others else ""
    cells = [wording.markup(label), f'<div class="ms-bar">{bars}</div>', meter, margin]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}{more}</tr>"


def _bar(row: Any, colour: str, total: float) -> str:
    weight, gone = _weight(row), "dropped" if row.dropped else ""
    style = f"width:{100 * max(weight, 0) / total:.1f}%;background:{colour}"
    words = f"{row.expert} · {weight:.2f}" if weight > 0.25 * total else f"{row.expert}"
    return f'<i class="{gone}" style="{style}" title="expert {row.expert}, weight {weight:.4g}">{words}</i>'


def _weight(row: Any) -> float:
    return 1.0 if row.weight != row.weight else float(row.weight)


def _chart(path: pd.DataFrame, sql: str, token: int, run: int) -> None:
    width = max(int(path["experts"].max()), int(path["expert"].max()) + 1)  # with those that are no routed experts
    known = {layer.label.removeprefix("layer "): layer for layer in pickers.layers(run)}
    names = {layer.router: name for name, layer in known.items()}
    frame = path.groupby(["router", "expert"], as_index=False)["weight"].sum()
    frame = frame.assign(layer=frame["router"].map(names))
    there = set(frame["layer"])

    def opened(expert: int, layer: str) -> None:
        url_state.request_page("experts", layer=known[layer].label, expert=expert)

    panels.heat(
        frame, "expert", "layer", "weight", "Weights along the way", sql, [token, run], name="route",
        clicked=opened, across=range(width), down=[name for name in reversed(known) if name in there],
    )  # fmt: skip
