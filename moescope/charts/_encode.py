"""Small words that every chart uses."""

import re
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

MANY = 500  # marks from which on a browser paints them, instead of keeping a node of the page for each
GREY = "#8A9299"  # rules and whiskers, seen on light and dark ground


def field(name: str) -> str:
    """A column's name as Vega-Lite takes it: dots and brackets are no paths."""
    return re.sub(r"([.\[\]])", r"\\\1", name)


def words(name: str) -> str:
    """A column's name as a reader likes it."""
    return name.replace("_", " ")


NONE = "–"  # the name of what has none: a figure of all layers together beside those of single ones


def tidy(frame: pd.DataFrame, axes: Sequence[str | None] = (), names: Sequence[str | None] = ()) -> pd.DataFrame:
    """The frame as it can be drawn: numbers as numbers, without rows that have no place on one of the `axes`; of `names`,
    what is missing is a dash. Itself where nothing is missing.
    """
    changed = {}
    for column in frame:
        values = _numbers(own := frame[column])
        if column in names and values.isna().any():
            values = values.map(_name).astype(object)
        if values is not own:
            changed[column] = values
    made = frame.assign(**changed) if changed else frame
    there = made[[c for c in axes if c is not None]].notna().all(axis=1)
    return made if there.all() else made[there]


def _numbers(values: pd.Series) -> pd.Series:
    """Columns of Python's numbers and None, and those that know NA, as floats."""
    if not values.isna().any() or not (values.dtype == object or pd.api.types.is_extension_array_dtype(values.dtype)):
        return values
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.astype(float) if numbers.notna().sum() == values.notna().sum() and not values.isna().all() else values


def _name(value: Any) -> str:
    if pd.isna(value):
        return NONE
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_number(frame: pd.DataFrame, column: str) -> bool:
    """True for columns of numbers."""
    return bool(pd.api.types.is_numeric_dtype(frame[column]))


def tooltips(frame: pd.DataFrame, columns: Sequence[str | None]) -> list[alt.Tooltip]:
    """What hovering shows: each column once, floats shortened."""
    shown = dict.fromkeys(c for c in columns if c is not None and c in frame)
    return [_tooltip(frame, column) for column in shown]


def _tooltip(frame: pd.DataFrame, column: str) -> alt.Tooltip:
    options: dict[str, Any] = {"field": field(column), "title": words(column)}
    if pd.api.types.is_float_dtype(frame[column]):
        return alt.Tooltip(type="quantitative", format=".4~g", **options)
    return alt.Tooltip(type="quantitative" if is_number(frame, column) else "nominal", **options)


def titled(chart: Any, title: str | None, subtitle: str | None) -> Any:
    """The chart with its title; `description` is what a screen reader says."""
    if not title and not subtitle:
        return chart
    more = {"subtitle": subtitle, "subtitleColor": GREY, "subtitleFontSize": 12} if subtitle else {}
    head = alt.TitleParams(text=title or "", anchor="start", **more)
    return chart.properties(title=head, description=". ".join(part for part in (title, subtitle) if part))


def rule(chance: float, horizontal: bool = True) -> alt.Chart:
    """A dashed rule at chance level; `dashed` names it below the title, where it covers nothing."""
    where = {"y" if horizontal else "x": alt.datum(chance)}
    base = alt.Chart(pd.DataFrame({"chance": [chance]}))
    return base.mark_rule(strokeDash=[5, 4], color=GREY, strokeWidth=1.5, aria=False).encode(**where)


def dashed(subtitle: str | None, chance: float | str | None, label: str) -> str | None:
    """The subtitle with the name and level of the dashed rule, unless it names it already."""
    if chance is None or "dashed" in (subtitle or ""):
        return subtitle
    name = f"dashed: {label}" + ("" if isinstance(chance, str) else f", {chance:.3g}")
    return f"{subtitle}; {name}" if subtitle else name
