"""Heat maps as the browser draws them (browser/heat_map.js): all cells on one canvas.

Files of the same picture are made by `moescope.charts.heatmap`; scales are the same.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..charts import span
from .bars import said
from .wording import clean

CLICK = "click a cell to open that "  # and what it is


def data_of(
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
    click: str = "",
) -> dict[str, Any]:
    """What the browser needs: names along both axes, and each column of numbers packed, row by row of the picture.

    `click` is what a click on a cell opens, in a word; "" where it opens nothing.
    `limits` as in `charts.heatmap`; `beyond`: whether values are below and above them.
    """
    columns, rows = _names(frame[x], across, False), _names(frame[y], down, pd.api.types.is_numeric_dtype(frame[y]))
    down_at, across_at = pd.Index(rows).get_indexer(frame[y]), pd.Index(columns).get_indexer(frame[x])
    place = np.where((down_at >= 0) & (across_at >= 0), down_at * len(columns) + across_at, -1)
    if chance is not None and subtitle is None:
        subtitle = f"neutral colour: chance, {said(chance, format)}"
    if click:
        subtitle = "; ".join(filter(None, (subtitle, CLICK + click)))
    known = [c for c in dict.fromkeys(tooltip) if c in frame and c not in (x, y, value) and _number(frame[c])]
    low, middle, high = span(frame[value], chance, centre, limits)
    beyond = [bool((frame[value] < low).any()), bool((frame[value] > high).any())]
    return {
        "title": title or "", "subtitle": subtitle, "format": format, "click": bool(click), "span": [low, middle, high],
        "beyond": beyond,
        "names": [clean(c.replace("_", " ")) for c in (x, y, value)],
        "x": [clean(str(v)) for v in columns], "y": [clean(str(v)) for v in rows], "keys": [columns, rows],
        "values": _packed(frame[value], place, len(rows) * len(columns)),
        "more": [[clean(c.replace("_", " ")), _form(c, format, value), _packed(frame[c], place, len(rows) * len(columns))]
                 for c in known],
    }  # fmt: skip


def _form(column: str, format: str, value: str) -> str:
    share = column.startswith("share") or column in ("overall", "low", "high", value)
    return format if share else ""


def _number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _names(values: pd.Series, given: Sequence[Any] | None, upwards: bool) -> list[Any]:
    """Plain values in the order of the axis: layers go up, like the model; words go down, like a list."""
    known = list(given) if given is not None else sorted(values.dropna().unique().tolist(), reverse=upwards)
    plain = [v.item() if hasattr(v, "item") else v for v in known]
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in plain]


def _packed(values: pd.Series, place: np.ndarray, count: int) -> tuple[str, str]:
    numbers = np.full(count, np.nan)
    numbers[place[place >= 0]] = values.to_numpy(dtype=float, na_value=np.nan)[place >= 0]
    kind = "f8" if np.nanmax(np.abs(numbers), initial=0) >= 1 << 24 else "f4"
    return kind, base64.b64encode(numbers.astype(f"<{kind}").tobytes()).decode()
