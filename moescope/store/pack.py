"""Routed columns in the fewest bits that lose nothing: what every row says alike goes, what is coarse becomes whole numbers.

DuckDB packs whole numbers into the bits of their range, but spends 26 to 30 bits on a float however few of them it uses:
* `slots` in order, no `dropped`, no `iteration`: left out.
* weights that are exact in bfloat16: their 16 bits, as h0, h1, ...
* two float32 weights that were divided by their sum: w1 differs from 1 - w0 by rounding only, and that is kept, as `rest`.
* summaries in whole steps (routes.STEPS): the number of steps.

A form is taken only where it gives every value of the batch back, bit for bit.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from .pieces import numbers, width
from .routes import STEPS

Array = np.ndarray[Any, Any]
_LOOK = 1024  # values tried before all are
_SLICE = 1 << 14  # values worked on at a time: they stay in the cache
_FAR = 2**20  # of units: from there on the rest takes as many bits as the weight
_SMALLEST = 71 << 7  # bfloat16 bits of 2^-56: below, the view's shift would not reach


def pack(table: pa.Table) -> pa.Table:
    """The same rows of routes_<k> or decided_<k> in fewer bits."""
    columns = dict(zip(table.column_names, table.columns))
    k = width(columns)
    usual = {"dropped": 0, "iteration": 0, "slots": sum(rank << 4 * rank for rank in range(k))}
    for name in usual.keys() & columns.keys():
        if columns[name].null_count == 0 and bool((numbers(columns[name]) == usual[name]).all()):
            del columns[name]
    weights = [columns.get(f"w{rank}") for rank in range(k)]
    if all(w is not None and pa.types.is_float32(w.type) for w in weights):
        _swap(columns, {f"w{rank}" for rank in range(k)}, _halves(weights))
        if k == 2 and "w1" in columns and columns["w0"].null_count == columns["w1"].null_count == 0:
            _swap(columns, {"w1"}, _rest(numbers(columns["w0"]), numbers(columns["w1"])))
    for name in STEPS.keys() & columns.keys():
        if pa.types.is_float32(columns[name].type) and columns[name].null_count == 0:
            _swap(columns, {name}, _steps(name, numbers(columns[name])))
    return pa.table(columns)


def _swap(columns: dict[str, Any], old: set[str], new: dict[str, Any] | None) -> None:
    if new is not None:
        for name in old:
            del columns[name]
        columns |= new


def _halves(weights: list[Any]) -> dict[str, Any] | None:
    """Upper 16 bits of each weight, if the lower are empty."""
    found = {}
    for rank, column in enumerate(weights):
        empty = np.asarray(column.is_null()) if column.null_count else None
        values = numbers(column)
        bits = np.ascontiguousarray(values if empty is None else np.where(empty, np.float32(1), values)).view(np.uint32)
        if (bits[:_LOOK] & 0xFFFF).any() or (bits & 0xFFFF).any():
            return None
        half = (bits >> 16).astype(np.uint16)
        if _outside(half):
            return None
        found[f"h{rank}"] = pa.array(half, mask=empty)
    return found


def _outside(half: Array) -> bool:
    """Whether some value is too small (0 is), negative, infinite or NaN."""
    return len(half) > 0 and (int(half.min()) < _SMALLEST or int(half.max()) >= 0x7F80)


def _rest(first: Array, second: Array) -> dict[str, Any] | None:
    """w1 - (1 - w0) in whole units of a power of two."""
    if not len(second) or not (least := float(second.min())) > 0 or not float(first.max()) <= 1:
        return None
    unit = 23 - int(np.floor(np.log2(least)))
    if not 23 <= unit <= 60:
        return None
    found = np.empty(len(second), np.int32)
    for start in range(0, len(second), _SLICE):
        some = slice(start, start + _SLICE)
        rest = np.subtract(1.0, first[some], dtype=np.float64)
        np.subtract(second[some], rest, out=rest)
        rest *= 2.0**unit
        if not -_FAR < float(rest.min()) <= float(rest.max()) < _FAR:
            return None
        found[some] = rest
    return {"rest": pa.array(found), "unit": pa.repeat(pa.scalar(unit, pa.uint8()), len(second))}


def _steps(name: str, values: Array) -> dict[str, Any] | None:
    """Whole numbers of steps."""
    for some in (slice(0, _LOOK), slice(None)):
        steps = values[some] * np.float32(STEPS[name])
        whole = np.rint(steps)
        if not bool((whole == steps).all()) or not bool((np.abs(whole) < 1 << 24).all()):
            return None
    return {f"{name}_n": pa.array(whole.astype(np.int32))}
