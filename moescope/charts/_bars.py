"""Categories by a value, with intervals and chance."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ._encode import GREY, dashed, field, is_number, rule, tidy, titled, tooltips, words
from ._palette import CATEGORY


def bars(
    frame: pd.DataFrame,
    x: str,
    y: str,
    low: str | None = None,
    high: str | None = None,
    chance: float | None = None,
    color: str | None = None,
    title: str | None = None,
    *,
    subtitle: str | None = None,
    sort: str | None = None,
    format: str = ".3~g",
    horizontal: bool = False,
    chance_label: str = "chance",
    tooltip: Sequence[str] = (),
    select: bool = False,
) -> alt.LayerChart:
    """A bar per x (side by side where `color` splits it); whiskers from `low` to `high`; chance as a dashed rule.

    `sort` is Vega-Lite's: None keeps the frame's order, "-y" the tallest first. `horizontal` lays long names down.
    `select` adds a click selection named "pick" with the field x.
    """
    frame = tidy(frame, names=(x, color))
    axes = _axes(frame, x, y, sort, format, horizontal)
    base = alt.Chart(frame).encode(**axes, **_offset(color, horizontal))
    shown = tooltips(frame, [x, color, y, low, high, *tooltip])
    bar = base.mark_bar(cornerRadiusEnd=2, **({} if color else {"color": CATEGORY[0]})).encode(tooltip=shown)
    if color:
        bar = bar.encode(color=_colour(frame, color))
    if select:
        pick = alt.selection_point(name="pick", fields=[x], on="click")
        bar = bar.add_params(pick).encode(opacity=alt.condition(pick, alt.value(1), alt.value(0.45)))
    layers: list[Any] = [bar]
    if low and high and frame[low].notna().any():
        layers.append(_whiskers(base, low, high, y, horizontal))
    if chance is not None:
        layers.append(rule(chance, horizontal=not horizontal))
    count = frame[x].nunique() * (frame[color].nunique() if color else 1)
    return titled(alt.layer(*layers).properties(**_size(count, horizontal)), title, dashed(subtitle, chance, chance_label))


def _colour(frame: pd.DataFrame, column: str) -> alt.Color:
    legend = alt.Legend(orient="bottom" if frame[column].nunique() <= 4 else "right", labelLimit=280)
    scale = alt.Scale(range="category")
    return alt.Color(field=field(column), type="nominal", title=words(column), scale=scale, legend=legend)


def _axes(frame: pd.DataFrame, x: str, y: str, sort: str | None, format: str, horizontal: bool) -> dict[str, Any]:
    angle = 0 if is_number(frame, x) or frame[x].astype(str).str.len().max() <= 6 else -35
    order: Any = frame.groupby(x)[y].max().sort_values(ascending=False).index.tolist() if sort == "-y" else sort
    value_axis = alt.Axis(format=format)
    if horizontal:
        return {"y": alt.Y(field=field(x), type="ordinal", title=words(x), sort=order, axis=alt.Axis(labelLimit=220)),
                "x": alt.X(field=field(y), type="quantitative", title=words(y), axis=value_axis)}  # fmt: skip
    names = alt.Axis(labelAngle=angle, labelOverlap=True)
    return {"x": alt.X(field=field(x), type="ordinal", title=words(x), sort=order, axis=names),
            "y": alt.Y(field=field(y), type="quantitative", title=words(y), axis=value_axis)}  # fmt: skip


def _offset(color: str | None, horizontal: bool) -> dict[str, Any]:
    if color is None:
        return {}
    if horizontal:
        return {"yOffset": alt.YOffset(field=field(color), type="nominal")}
    return {"xOffset": alt.XOffset(field=field(color), type="nominal")}


def _whiskers(base: alt.Chart, low: str, high: str, y: str, horizontal: bool) -> alt.Chart:
    whisker = base.mark_rule(color=GREY, strokeWidth=1.6, aria=False)
    if horizontal:
        return whisker.encode(x=alt.X(field=field(low), type="quantitative", title=words(y)), x2=field(high))
    return whisker.encode(y=alt.Y(field=field(low), type="quantitative", title=words(y)), y2=field(high))


def _size(count: int, horizontal: bool) -> dict[str, float]:
    if horizontal:
        return {"width": 480, "height": max(min(count * 22, 900), 60)}
    return {"width": max(min(count * 34, 620), 180), "height": 260}
