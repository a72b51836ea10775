"""The chart forms that analyses share. Colours are named ranges of the theme (charts/_palette.py); every mark has a tooltip."""

from typing import Any

import pandas as pd

WIDTH, HEIGHT = 520, 260
GREY = "#8A9299"  # rules, seen on light and dark ground
MANY = 500  # cells from which on a browser paints them


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers that Altair can write: no pandas integers with missing values."""
    return frame.astype({c: "float" for c in frame if isinstance(frame[c].dtype, pd.Int64Dtype)})


def _short(values: pd.Series) -> bool:
    """True where names fit below their column."""
    return pd.api.types.is_numeric_dtype(values) or bool(values.astype(str).str.len().max() <= 4)


def layers(frame: pd.DataFrame, title: str, colour: str = "stack", x: str = "layer") -> Any:
    """Value by layer (or another count `x`) with its interval, and chance as a dashed line."""
    import altair as alt

    if colour != "stack" and frame["stack"].nunique() > 1:
        frame = frame.assign(**{colour: frame["stack"] + " " + frame[colour].astype(str)})
    base = alt.Chart(_plain(frame[[x, "value", "ci_low", "ci_high", "chance", "p", "q", "n", "units", colour]])).encode(
        x=alt.X(f"{x}:Q", title=x, axis=alt.Axis(tickMinStep=1))
    )
    tips = [f"{x}:Q", f"{colour}:N", *[f"{c}:Q" for c in ("value", "ci_low", "ci_high", "chance", "p", "q", "n", "units")]]
    hue = alt.Color(f"{colour}:N")
    line = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)), color=hue, tooltip=tips
    )
    band = base.mark_errorbar(ticks=True).encode(y=alt.Y("ci_low:Q", title=title), y2="ci_high:Q", color=hue)
    chance = base.mark_line(strokeDash=[4, 4], color=GREY).encode(y="chance:Q", detail=f"{colour}:N")
    return (band + chance + line).properties(title=title, width=WIDTH, height=HEIGHT)


def heatmap(frame: pd.DataFrame, title: str, x: str = "expert", y: str = "layer", value: str = "value") -> Any:
    """A cell per `x` and `y`, one row of charts per stack."""
    import altair as alt

    columns = [c for c in dict.fromkeys([x, y, "stack", value, "chance", "ci_low", "ci_high", "q", "n"]) if c in frame]
    tips = [f"{c}:{'N' if c in (x, y, 'stack') else 'Q'}" for c in columns]
    colour = alt.Color(f"{value}:Q", scale=alt.Scale(range="heatmap"), legend=alt.Legend(gradientThickness=10, tickCount=5))
    across = alt.X(f"{x}:O", axis=alt.Axis(labelOverlap=True, labelAngle=0 if _short(frame[x]) else -35))
    up = alt.Y(f"{y}:O", sort="descending" if pd.api.types.is_numeric_dtype(frame[y]) else "ascending")
    chart = alt.Chart(_plain(frame[columns])).mark_rect().encode(x=across, y=up, color=colour, tooltip=tips)
    painted = {"usermeta": {"embedOptions": {"renderer": "canvas"}}} if len(frame) > MANY else {}
    chart = chart.properties(title=title, width=WIDTH, height=HEIGHT, **painted)
    return chart if "stack" not in frame or frame["stack"].nunique() < 2 else chart.facet(row="stack:N")


def bars(frame: pd.DataFrame, title: str, x: str, colour: str, value: str = "value") -> Any:
    """Bars beside each other, by `x` and coloured by `colour`."""
    import altair as alt

    columns = [c for c in dict.fromkeys([x, colour, value, "ci_low", "ci_high", "chance", "q", "n"]) if c in frame]
    tips = [f"{c}:{'N' if c in (x, colour) else 'Q'}" for c in columns]
    chart = alt.Chart(_plain(frame[columns])).mark_bar()
    chart = chart.encode(
        x=alt.X(f"{x}:N", sort=None), xOffset=alt.XOffset(f"{colour}:N"), y=f"{value}:Q", color=f"{colour}:N", tooltip=tips
    )
    return chart.properties(title=title, width=WIDTH, height=HEIGHT)
