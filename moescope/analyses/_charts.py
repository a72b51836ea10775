"""The chart forms that analyses share. Colours are safe for colour-blind readers; every mark has a tooltip."""

from typing import Any

import pandas as pd

WIDTH, HEIGHT = 520, 260


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers that Altair can write: no pandas integers with missing values."""
    return frame.astype({c: "float" for c in frame if isinstance(frame[c].dtype, pd.Int64Dtype)})


def layers(frame: pd.DataFrame, title: str, colour: str = "stack") -> Any:
    """Value by layer with its interval, and chance as a dashed line."""
    import altair as alt

    if colour != "stack" and frame["stack"].nunique() > 1:
        frame = frame.assign(**{colour: frame["stack"] + " " + frame[colour].astype(str)})
    base = alt.Chart(_plain(frame[["layer", "value", "ci_low", "ci_high", "chance", "p", "q", "n", "units", colour]])).encode(
        x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1))
    )
    tips = ["layer:Q", f"{colour}:N", *[f"{c}:Q" for c in ("value", "ci_low", "ci_high", "chance", "p", "q", "n", "units")]]
    hue = alt.Color(f"{colour}:N")
    line = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)), color=hue, tooltip=tips
    )
    band = base.mark_errorbar(ticks=True).encode(y=alt.Y("ci_low:Q", title=title), y2="ci_high:Q", color=hue)
    chance = base.mark_line(strokeDash=[4, 4], color="gray").encode(y="chance:Q", detail=f"{colour}:N")
    return (band + chance + line).properties(title=title, width=WIDTH, height=HEIGHT)


def heatmap(frame: pd.DataFrame, title: str, x: str = "expert", y: str = "layer", value: str = "value") -> Any:
    """A cell per `x` and `y`, one row of charts per stack."""
    import altair as alt

    columns = [c for c in dict.fromkeys([x, y, "stack", value, "chance", "ci_low", "ci_high", "q", "n"]) if c in frame]
    tips = [f"{c}:{'N' if c in (x, y, 'stack') else 'Q'}" for c in columns]
    colour = alt.Color(f"{value}:Q", scale=alt.Scale(scheme="viridis"), title=value)
    chart = (
        alt.Chart(_plain(frame[columns])).mark_rect().encode(x=alt.X(f"{x}:O"), y=alt.Y(f"{y}:O"), color=colour, tooltip=tips)
    )
    chart = chart.properties(title=title, width=WIDTH, height=HEIGHT)
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
