"""Charts as files, without a browser and without the network (vl-convert)."""

import json
import re
from typing import Any

import altair as alt

from ._palette import theme

_LONG = re.compile(r"-?\d+\.\d{3,}")
_WORDS = re.compile(r' aria-(?:label|roledescription)="[^"]*"')
_COLOUR = re.compile(r"rgb\((\d+), (\d+), (\d+)\)")
_N = r"-?[\d.]+"
_CURVE = rf"C(?:{_N},){{5}}{_N}"
_CELL = re.compile(  # a rectangle with round corners, as Vega writes it
    rf'<path d="M(?P<inner>{_N}),(?P<top>{_N})L{_N},(?P=top){_CURVE}L(?P<right>{_N}),{_N}{_CURVE}'
    rf'L(?P=inner),(?P<bottom>{_N}){_CURVE}L(?P<left>{_N}),{_N}{_CURVE}Z"'
)


def themed(chart: Any, dark: bool = False) -> dict[str, Any]:
    """The Vega-Lite specification with our theme in it; the chart's own settings win."""
    with alt.data_transformers.disable_max_rows():
        spec = chart.to_dict() if hasattr(chart, "to_dict") else dict(chart)
    own = {key: value for key, value in spec.get("config", {}).items() if key != "view"}
    return {**spec, "config": _merged(theme(dark), own)}


def signed(chart: Any, words: str) -> dict[str, Any]:
    """The chart as a specification with one more line below its title: where it is from."""
    with alt.data_transformers.disable_max_rows():
        spec = chart.to_dict() if hasattr(chart, "to_dict") else dict(chart)
    own = spec.get("title", {})
    title = dict(own) if isinstance(own, dict) else {"text": own or "", "anchor": "start"}
    above = title.get("subtitle", [])
    lines = [above] if isinstance(above, str) else list(above)
    return {**spec, "title": {"text": "", **title, "subtitle": [*filter(None, lines), words]}}


def to_svg(chart: Any, dark: bool = False, small: bool = False) -> str:
    """Text of an SVG picture; `small`: for a file that is shown as an image, without words on every mark, which nobody could
    hear there, and cells as rectangles."""
    svg = _slim(_convert().vegalite_to_svg(json.dumps(themed(chart, dark)), allowed_base_urls=[]))
    return smaller(svg) if small else svg


def smaller(svg: str) -> str:
    """What `to_svg` leaves out of a small picture."""
    plain = _COLOUR.sub(lambda found: "#" + "".join(f"{int(part):02x}" for part in found.groups()), _WORDS.sub("", svg))
    return _CELL.sub(_rectangle, plain)


def _rectangle(found: re.Match[str]) -> str:
    left, top, right, bottom, radius = (float(found[name]) for name in ("left", "top", "right", "bottom", "inner"))
    x, y, wide, high, round_by = (_number(value) for value in (left, top, right - left, bottom - top, radius - left))
    return f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="{round_by}"'


def _slim(svg: str) -> str:
    """Places to a hundredth of a point, and no word that says what every mark is: a third less."""
    places = re.sub(r' (?:d|transform)="[^"]*"', lambda found: _LONG.sub(_short, found[0]), svg)
    return places.replace(' aria-roledescription="rect mark"', "").replace(' role="graphics-symbol"', "")


def _short(found: re.Match[str]) -> str:
    return _number(float(found[0]))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def to_png(chart: Any, dark: bool = False, scale: float = 2.0) -> bytes:
    """Bytes of a PNG picture, `scale` times the chart's size in pixels."""
    return _convert().vegalite_to_png(json.dumps(themed(chart, dark)), scale=scale, allowed_base_urls=[])


def to_pdf(chart: Any, dark: bool = False) -> bytes:
    """Bytes of a PDF page, with text as text."""
    return _convert().vegalite_to_pdf(json.dumps(themed(chart, dark)), allowed_base_urls=[])


def svg_to_png(svg: str, scale: float = 2.0) -> bytes:
    """The PNG of a picture in SVG, `scale` times its size."""
    return _convert().svg_to_png(svg, scale=scale)


def svg_to_pdf(svg: str) -> bytes:
    """The PDF of a picture in SVG."""
    return _convert().svg_to_pdf(svg)


def to_html(chart: Any, dark: bool = False) -> str:
    """One HTML page with everything inside it: hovering works, nothing is fetched."""
    return _convert().vegalite_to_html(json.dumps(themed(chart, dark)), bundle=True)


def _convert() -> Any:
    import vl_convert  # 60 MB: only when a picture is asked for

    return vl_convert


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
