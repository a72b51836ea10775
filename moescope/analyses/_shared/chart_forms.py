"""The chart forms that analyses share. Colours are named ranges of the theme (charts/_palette.py); every mark has a tooltip.

Each takes the SQL that its frame is computed from, and gives a Chart that holds the very rows that are drawn.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from .answer import Chart

WIDTH, HEIGHT = 520, 260
GREY = "#8A9299"  # rules, seen on light and dark ground
MANY = 500  # cells from which on a browser paints them
COMPUTED = "/* What is drawn is computed from the rows of this query. */\n"


def chart(frame: pd.DataFrame, sql: str, draw: Callable[[pd.DataFrame], Any]) -> Chart:
    """What `draw` makes of a frame that is computed from the rows of `sql`, together with that frame."""
    drawn = _plain(frame)
    return Chart(draw(drawn), drawn, COMPUTED + sql)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers that Altair can write: no pandas integers with missing values."""
    return frame.astype({c: "float" for c in frame if isinstance(frame[c].dtype, pd.Int64Dtype)})


def _columns(frame: pd.DataFrame, *names: str) -> pd.DataFrame:
    return frame[[c for c in dict.fromkeys(names) if c in frame]]


def _short(values: pd.Series) -> bool:
    """True where names fit below their column."""
    return pd.api.types.is_numeric_dtype(values) or bool(values.astype(str).str.len().max() <= 4)


def layers(frame: pd.DataFrame, title: str, sql: str, colour: str = "stack", x: str = "layer") -> Chart:
    """Value by layer (or another count `x`) with its interval, and chance as a dashed line."""
    if colour != "stack" and frame["stack"].nunique() > 1:
        frame = frame.assign(**{colour: frame["stack"] + " " + frame[colour].astype(str)})
    numbers = ("value", "ci_low", "ci_high", "chance", "p", "q", "n", "units")
    return chart(_columns(frame, "stack", colour, x, *numbers), sql, lambda shown: _layers(shown, title, colour, x, numbers))


def _layers(shown: pd.DataFrame, title: str, colour: str, x: str, numbers: tuple[str, ...]) -> Any:
    import altair as alt

    base = alt.Chart(shown).encode(x=alt.X(f"{x}:Q", title=x, axis=alt.Axis(tickMinStep=1)))
    tips = [f"{x}:Q", f"{colour}:N", *[f"{c}:Q" for c in numbers]]
    hue = alt.Color(f"{colour}:N")
    line = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)), color=hue, tooltip=tips
    )
    band = base.mark_errorbar(ticks=True).encode(y=alt.Y("ci_low:Q", title=title), y2="ci_high:Q", color=hue)
    chance = base.mark_line(strokeDash=[4, 4], color=GREY).encode(y="chance:Q", detail=f"{colour}:N")
    return (band + chance + line).properties(title=title, width=WIDTH, height=HEIGHT)


def heatmap(frame: pd.DataFrame, title: str, sql: str, x: str = "expert", y: str = "layer", value: str = "value") -> Chart:
    """A cell per `x` and `y`, one row of charts per stack."""
    cells = _columns(frame, x, y, "stack", value, "chance", "ci_low", "ci_high", "q", "n")
    return chart(cells, sql, lambda shown: _heatmap(shown, title, x, y, value))


def _heatmap(shown: pd.DataFrame, title: str, x: str, y: str, value: str) -> Any:
    import altair as alt

    from ...charts import fixed

    tips = [f"{c}:{'N' if c in (x, y, 'stack') else 'Q'}" for c in shown]
    low, middle, high = fixed(shown[value], shown.get("chance"))
    kind = {"range": "heatmap"} if middle is None else {"range": "diverging", "domainMid": middle}
    scale = alt.Scale(domain=[low, high], clamp=True, **kind)
    colour = alt.Color(f"{value}:Q", scale=scale, legend=alt.Legend(gradientThickness=10, tickCount=5))
    across = alt.X(f"{x}:O", axis=alt.Axis(labelOverlap=True, labelAngle=0 if _short(shown[x]) else -35))
    up = alt.Y(f"{y}:O", sort="descending" if pd.api.types.is_numeric_dtype(shown[y]) else "ascending")
    made = alt.Chart(shown).mark_rect().encode(x=across, y=up, color=colour, tooltip=tips)
    painted = {"usermeta": {"embedOptions": {"renderer": "canvas"}}} if len(shown) > MANY else {}
    made = made.properties(title=title, width=WIDTH, height=HEIGHT, **painted)
    return made if "stack" not in shown or shown["stack"].nunique() < 2 else made.facet(row="stack:N")


def bars(frame: pd.DataFrame, title: str, sql: str, x: str, colour: str, value: str = "value") -> Chart:
    """Bars beside each other, by `x` and coloured by `colour`."""
    columns = _columns(frame, x, colour, value, "ci_low", "ci_high", "chance", "q", "n")
    return chart(columns, sql, lambda shown: _bars(shown, title, x, colour, value))


def _bars(shown: pd.DataFrame, title: str, x: str, colour: str, value: str) -> Any:
    import altair as alt

    tips = [f"{c}:{'N' if c in (x, colour) else 'Q'}" for c in shown]
    made = alt.Chart(shown).mark_bar().encode(
        x=alt.X(f"{x}:N", sort=None), xOffset=alt.XOffset(f"{colour}:N"), y=f"{value}:Q", color=f"{colour}:N", tooltip=tips
    )  # fmt: skip
    return made.properties(title=title, width=WIDTH, height=HEIGHT)
