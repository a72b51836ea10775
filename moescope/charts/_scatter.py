"""Points on a plane."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ._encode import MANY, field, is_number, titled, tooltips, words


def scatter(
    frame: pd.DataFrame,
    x: str,
    y: str,
    color: str | None = None,
    title: str | None = None,
    *,
    subtitle: str | None = None,
    size: str | None = None,
    tooltip: Sequence[str] = (),
    axes: bool = True,
    select: bool = False,
) -> alt.Chart:
    """A point per row; `axes=False` for maps whose axes mean nothing (UMAP).

    Names get the category colours (the 7 commonest keep their own, pass others as "other"), numbers a ramp.
    `select` adds a brush named "brush" over x and y.
    """
    axis = alt.Axis(grid=True) if axes else None
    encodings: dict[str, Any] = {
        "x": alt.X(field=field(x), type="quantitative", title=words(x), scale=alt.Scale(zero=False), axis=axis),
        "y": alt.Y(field=field(y), type="quantitative", title=words(y), scale=alt.Scale(zero=False), axis=axis),
        "tooltip": tooltips(frame, [x, y, color, size, *tooltip] if axes else [color, size, *tooltip]),
    }
    if color:
        number = is_number(frame, color)
        encodings["color"] = alt.Color(
            field=field(color), type="quantitative" if number else "nominal", title=words(color),
            scale=alt.Scale(range="heatmap" if number else "category"),
        )  # fmt: skip
    if size:
        encodings["size"] = alt.Size(field=field(size), type="quantitative", title=words(size))
    else:
        encodings["size"] = alt.value(22 if len(frame) > 500 else 48)
    chart = alt.Chart(frame).mark_circle(opacity=0.75).encode(**encodings)
    if select:
        brush = alt.selection_interval(name="brush")
        chart = chart.add_params(brush).encode(opacity=alt.condition(brush, alt.value(0.85), alt.value(0.2)))
    painted = {"usermeta": {"embedOptions": {"renderer": "canvas"}}} if len(frame) > MANY else {}
    return titled(chart.properties(width=560, height=420, **painted), title, subtitle)
