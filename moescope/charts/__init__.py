"""Altair charts over data frames: one source for the dashboard, reports and figures of papers.

Colours come from named ranges of the theme (`category`, `ordinal`, `heatmap`, `diverging`), all safe for colour-blind readers;
so one chart is right on light and on dark ground. Intervals are bands or whiskers, chance is a dashed rule.
"""

from ._bars import bars
from ._drawn import drawn
from ._export import signed, svg_to_pdf, svg_to_png, themed, to_html, to_pdf, to_png, to_svg
from ._flow import flow, ribbons
from ._heatmap import fixed, heatmap, span
from ._lines import lines
from ._links import linked, unlinked
from ._palette import CATEGORY, LOCALE, OTHER, look, theme
from ._scatter import scatter

__all__ = [
    "CATEGORY",
    "LOCALE",
    "OTHER",
    "bars",
    "drawn",
    "fixed",
    "flow",
    "heatmap",
    "lines",
    "linked",
    "look",
    "ribbons",
    "scatter",
    "signed",
    "span",
    "svg_to_pdf",
    "svg_to_png",
    "theme",
    "themed",
    "to_html",
    "to_pdf",
    "to_png",
    "to_svg",
    "unlinked",
]
