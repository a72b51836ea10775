"""A value along an axis, with its interval and chance."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ._encode import dashed, field, is_number, rule, tidy, titled, tooltips, words
from ._palette import CATEGORY


def lines(
    frame: pd.DataFrame,
    x: str,
    y: str,
    color: str | None = None,
    low: str | None = None,
    high: str | None = None,
    chance: float | str | None = None,
    title: str | None = None,
    *,
    subtitle: str | None = None,
    format: str = ".3~g",
    zero: bool = False,
    chance_label: str = "chance",
    tooltip: Sequence[str] = (),
) -> alt.LayerChart:
    """Lines with points, one per value of `color`; a band between `low` and `high`; chance as a dashed rule.

    `chance` is one level, or a column where chance changes along x. A band means a 95 % interval unless `subtitle` says else.
    """
    frame = tidy(frame, (x,), (color,))
    across = _across(frame, x)
    up = alt.Y(field=field(y), type="quantitative", title=words(y), scale=alt.Scale(zero=zero), axis=alt.Axis(format=format))
    color = color if color and frame[color].nunique(dropna=False) > 1 else None
    hue: dict[str, Any] = {"color": _hue(frame, color)} if color else {}
    own = {} if color else {"color": CATEGORY[0]}
    base = alt.Chart(frame)
    layers: list[Any] = []
    if low and high and frame[low].notna().any():
        band = base.mark_area(opacity=0.18, line=False, **own)
        layers.append(
            band.encode(x=across, y=alt.Y(field=field(low), type="quantitative", title=words(y)), y2=field(high), **hue)
        )
    shown = tooltips(frame, [x, color, y, low, high, chance if isinstance(chance, str) else None, *tooltip])
    mark = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=34, filled=True), **own)
    layers.append(mark.encode(x=across, y=up, tooltip=shown, **hue))
    layers += _chance(base, frame, x, chance)
    return titled(alt.layer(*layers).properties(width=560, height=280), title, dashed(subtitle, chance, chance_label))


def _chance(base: alt.Chart, frame: pd.DataFrame, x: str, chance: float | str | None) -> list[Any]:
    if chance is None:
        return []
    if isinstance(chance, str):
        dashed = base.mark_line(strokeDash=[5, 4], color="#8A9299", strokeWidth=1.5)
        return [dashed.encode(x=_across(frame, x), y=alt.Y(field=field(chance), type="quantitative", aggregate="mean"))]
    return [rule(float(chance))]


def _across(frame: pd.DataFrame, x: str) -> alt.X:
    if is_number(frame, x) and frame[x].nunique() > 2:
        whole = pd.api.types.is_integer_dtype(frame[x])
        axis = alt.Axis(tickMinStep=1, format="d", grid=False) if whole else alt.Axis(grid=False)
        return alt.X(
            field=field(x), type="quantitative", title=words(x), scale=alt.Scale(zero=False, nice=False, padding=12), axis=axis
        )
    return alt.X(field=field(x), type="ordinal", title=words(x), axis=alt.Axis(labelAngle=0))


def _hue(frame: pd.DataFrame, color: str) -> alt.Color:
    many = frame[color].nunique()
    place: dict[str, Any] = {"orient": "bottom"} if many <= 4 else {"orient": "right", "columns": max(1, many // 16)}
    legend = alt.Legend(symbolLimit=64, symbolOpacity=1, labelLimit=280, **place)
    scale = alt.Scale(range="category") if many <= 8 or not is_number(frame, color) else alt.Scale(range="heatmap")
    kind = "quantitative" if is_number(frame, color) and many > 8 else "nominal"
    return alt.Color(
        field=field(color), type=kind, title=words(color), scale=scale, **({} if kind != "nominal" else {"legend": legend})
    )
