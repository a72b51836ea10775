"""Colours and type, for light and dark ground.

Categories: after Okabe and Ito (2008), told apart with every common form of colour blindness; blue and yellow are shifted
to stand on both grounds.
Sequential: from ground to deep blue-green. Diverging: blue - neutral - orange, after ColorBrewer PuOr.
"""

from typing import Any

CATEGORY = ("#1F7FC2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#A8A000", "#8F63D2")
OTHER = "#9AA0A6"
SEQUENTIAL = {
    "light": ("#F2F6F8", "#D8E7EC", "#B7D6DF", "#8FC1CF", "#63A9BD", "#3D8FA9", "#247591", "#165C78", "#0D445E", "#072E43"),
    "dark": ("#15222A", "#15323F", "#154456", "#17586E", "#206E86", "#35869D", "#559FB2", "#7FB9C6", "#ADD3DA", "#E0EEF0"),
}
DIVERGING = {
    "light": ("#0B4F8A", "#2C77B4", "#6BA5D1", "#A9CCE4", "#DCE9F1", "#F6EADC", "#F6CB9A", "#E89F54", "#C97420", "#8F4A06"),
    "dark": ("#8CC4F0", "#5DA3DA", "#3B80B8", "#2A5C86", "#27343E", "#38332C", "#7C5427", "#B27428", "#DD9A45", "#F8C98E"),
}
INK = {"light": "#1F2933", "dark": "#E6E8EA"}
FAINT = {"light": "#5B6770", "dark": "#A3ABB2"}
LINE = {"light": "#E4E8EB", "dark": "#33393F"}
GROUND = {"light": "#FFFFFF", "dark": "#14171A"}
WASH = {"light": "#F3F6F8", "dark": "#1D2226"}
ACCENT = {"light": "#156B83", "dark": "#3FA3BD"}
LOCALE = {"number": {"decimal": ".", "thousands": ",", "grouping": [3], "currency": ["$", ""], "percent": " %"}}
FONT = "Source Sans Pro, Source Sans, Helvetica Neue, Helvetica, Arial, sans-serif"


def theme(dark: bool = False) -> dict[str, Any]:
    """A Vega-Lite `config` for charts that stand alone."""
    mode = "dark" if dark else "light"
    ink, faint, line = INK[mode], FAINT[mode], LINE[mode]
    axis = {"labelColor": faint, "titleColor": ink, "gridColor": line, "domainColor": line, "tickColor": line}
    return {
        "background": GROUND[mode],
        "font": FONT,
        "padding": 12,
        "view": {"stroke": None},
        "axis": {**axis, "titleFontWeight": 500, "titleFontSize": 12, "labelFontSize": 11, "titlePadding": 8},
        "legend": {"labelColor": faint, "titleColor": ink, "titleFontWeight": 500, "labelFontSize": 11},
        "header": {"labelColor": ink, "titleColor": ink},
        "title": {"color": ink, "subtitleColor": faint, "fontSize": 15, "fontWeight": 600, "subtitleFontSize": 12,
                  "anchor": "start", "offset": 10},
        "text": {"color": ink},
        "rule": {"color": faint},
        "range": ranges(mode),
        "locale": LOCALE,
    }  # fmt: skip


def ranges(mode: str) -> dict[str, list[str]]:
    """Named ranges for "light" or "dark"."""
    return {
        "category": list(CATEGORY),
        "heatmap": list(SEQUENTIAL[mode]),
        "ramp": list(SEQUENTIAL[mode]),
        "ordinal": list(SEQUENTIAL[mode]),
        "diverging": list(DIVERGING[mode]),
    }


def look(mode: str) -> dict[str, Any]:
    """What a page needs to look like the dashboard, for "light" or "dark": single colours, and the two ramps."""
    return {
        "ink": INK[mode], "faint": FAINT[mode], "line": LINE[mode], "ground": GROUND[mode], "wash": WASH[mode],
        "accent": ACCENT[mode], "sequential": SEQUENTIAL[mode], "diverging": DIVERGING[mode],
    }  # fmt: skip
