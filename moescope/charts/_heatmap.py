"""Two categories by a value."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ._encode import MANY, field, is_number, tidy, titled, tooltips, words


def heatmap(
    frame: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    title: str | None = None,
    chance: float | None = None,
    *,
    centre: float | None = None,
    subtitle: str | None = None,
    format: str = ".3~g",
    tooltip: Sequence[str] = (),
    across: Sequence[Any] | None = None,
    down: Sequence[Any] | None = None,
    limits: tuple[float, float] | None = None,
) -> alt.Chart:
    """A cell per (x, y), coloured by `value`, e.g. layer × expert.

    Sequential by default. `centre` makes it diverging, as far to either side (differences: 0). `chance` makes it diverging
    around the level that chance gives, from the smallest to the largest value, and says so below the title.
    `limits` are the ends of the colours whatever the values are, so that pictures can be compared.
    `across` and `down` are all the names on the axes, where the frame has rows for some only.
    """
    if chance is not None and subtitle is None:
        subtitle = f"neutral colour = chance, {chance:.3g}"
    frame = tidy(frame, (x, y))
    chart = alt.Chart(frame).mark_rect(cornerRadius=1.5 if len(frame) <= MANY else 0).encode(
        x=alt.X(field=field(x), type="ordinal", title=words(x), axis=_axis(frame[x]), **_known(across)),
        y=alt.Y(field=field(y), type="ordinal", title=words(y), sort=_down(frame, y), axis=alt.Axis(labelOverlap=True),
                **_known(down)),
        color=alt.Color(
            field=field(value), type="quantitative", title=words(value), scale=_scale(frame[value], chance, centre, limits),
            legend=alt.Legend(format=format, gradientThickness=10, tickCount=5),
        ),
        tooltip=tooltips(frame, [x, y, value, *tooltip]),
    )  # fmt: skip
    size = _size(len(across) if across else frame[x].nunique(), len(down) if down else frame[y].nunique())
    painted = {"usermeta": {"embedOptions": {"renderer": "canvas"}}} if len(frame) > MANY else {}
    return titled(chart.properties(**size, **painted), title, subtitle)


def _known(names: Sequence[Any] | None) -> dict[str, Any]:
    return {} if names is None else {"scale": alt.Scale(domain=list(names))}


def span(
    values: pd.Series, chance: float | None = None, centre: float | None = None, limits: tuple[float, float] | None = None
) -> tuple[float, float | None, float]:
    """Lowest and highest value of the colours, and the neutral one between them where they are diverging."""
    if limits is not None:
        return limits[0], centre if centre is not None else chance, limits[1]
    finite = _finite(values)
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if centre is not None:
        reach = max(abs(low - centre), abs(high - centre)) or 1.0
        return centre - reach, centre, centre + reach
    if chance is not None:
        return min(low, chance), chance, max(high, chance)
    return min(low, 0.0), None, high if high > min(low, 0.0) else 1.0


def _finite(values: pd.Series) -> pd.Series:
    known = values.dropna().astype(float)
    return known[np.isfinite(known)]


def _scale(
    values: pd.Series, chance: float | None, centre: float | None, limits: tuple[float, float] | None = None
) -> alt.Scale:
    low, middle, high = span(values, chance, centre, limits)
    clamp = {} if limits is None else {"clamp": True}
    if middle is None:
        return alt.Scale(range="heatmap", domain=[low, high], **clamp)
    return alt.Scale(range="diverging", domain=[low, high], domainMid=middle, **clamp)


def _axis(values: pd.Series) -> alt.Axis:
    many = pd.api.types.is_numeric_dtype(values) or values.astype(str).str.len().max() <= 4
    return alt.Axis(labelOverlap=True, labelAngle=0 if many else -35)


def _down(frame: pd.DataFrame, y: str) -> str:
    """Layers go up, like the model; words go down, like a list."""
    return "descending" if is_number(frame, y) else "ascending"


def _size(columns: int, rows: int) -> dict[str, float]:
    return {"width": max(min(columns * 34, 620), 160), "height": max(min(rows * 30, 460), 60 if rows < 3 else 110)}


def fixed(values: pd.Series, chance: pd.Series | None = None) -> tuple[float, float | None, float]:
    """`span` of colours that can be compared from picture to picture: never from the smallest to the largest value.

    0 to twice chance around chance, where that is one for all; as far to either side of 0, where there are values below it;
    else from 0 on; to a round number.
    """
    known = set() if chance is None else set(chance.dropna().astype(float).round(9))
    if len(known) == 1 and (even := known.pop()) > 0:
        return 0.0, even, 2 * even
    finite = _finite(values)
    reach = _round(float(finite.abs().max())) if len(finite) else 1.0
    return (-reach, 0.0, reach) if (finite < 0).any() else (0.0, None, reach)


def _round(number: float) -> float:
    """The next of 1, 2, 5, 10, ... from a number on."""
    if not 0 < number < float("inf"):
        return 1.0
    size = 10.0 ** np.floor(np.log10(number))
    return float(next(size * step for step in (1, 2, 5, 10) if size * step >= number * (1 - 1e-9)))
