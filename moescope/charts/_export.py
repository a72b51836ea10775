"""Charts as files, without a browser and without the network (vl-convert)."""

import json
import re
from typing import Any

import altair as alt

from ._palette import theme

_LONG = re.compile(r"-?\d+\.\d{3,}")
_WORDS = re.compile(r' aria-(?:label|roledescription)="[^"]*"')


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


def to_svg(chart: Any, dark: bool = False, spoken: bool = True) -> str:
    """Text of an SVG picture; `spoken`: with words on every mark, which whoever shows the file as an image cannot hear."""
    svg = _slim(_convert().vegalite_to_svg(json.dumps(themed(chart, dark)), allowed_base_urls=[]))
    return svg if spoken else _WORDS.sub("", svg)


def _slim(svg: str) -> str:
    """Places to a hundredth of a point, and no word that says what every mark is: a third less."""
    places = re.sub(r' (?:d|transform)="[^"]*"', lambda found: _LONG.sub(_short, found[0]), svg)
    return places.replace(' aria-roledescription="rect mark"', "").replace(' role="graphics-symbol"', "")


def _short(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


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
