"""Routed columns in the fewest bits that lose nothing: what every row says alike goes, what is coarse becomes whole numbers.

DuckDB packs whole numbers into the bits of their range, but spends 26 to 30 bits on a float however few of them it uses:
* `slots` in order, no `dropped`, no `iteration`: left out.
* weights that are exact in bfloat16: their 16 bits, as h0, h1, ...
* two of those that were divided by their sum: w0 is 1 - w1 in 256ths, give or take one or two, and that is kept, as `near`.
* two float32 weights that were divided by their sum: w1 differs from 1 - w0 by rounding only, and that is kept, as `rest`.
* summaries in whole steps (routes.STEPS): the number of steps.

A form is taken only where it gives every value of the batch back, bit for bit.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from . import encoding_loops
from .column_buffer import numbers, width
from .tables import STEPS

Array = np.ndarray[Any, Any]
_LOOK = 1024  # values tried before all are
_FAR = 2**20  # of units: from there on the rest takes as many bits as the weight
_NEAR = 3  # 256ths: from there on `near` takes no fewer bits than h0
_SMALLEST, _BEYOND = 71 << 7, 135 << 7  # bfloat16 bits of 2^-56 and of 256: the view's shift reaches from the one to the other


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
        if k == 2 and "h1" in columns and columns["h0"].null_count == columns["h1"].null_count == 0:
            _swap(columns, {"h0"}, _near(columns["h0"].to_numpy(), columns["h1"].to_numpy()))
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
        values = np.ascontiguousarray(numbers(column, 1)).view(np.uint32)
        half = np.empty(len(values), np.uint16)
        if not encoding_loops.halve(values[:_LOOK], half[:_LOOK]) or not encoding_loops.halve(values, half):
            return None
        if not encoding_loops.within(half, _SMALLEST, _BEYOND):
            return None
        found[f"h{rank}"] = pa.array(half, mask=empty)
    return found


def _near(first: Array, second: Array) -> dict[str, Any] | None:
    """w0 by w1: a few 256ths."""
    found = np.empty(len(first), np.int8)
    return {"near": pa.array(found)} if encoding_loops.near(first, second, _NEAR, found) else None


def _rest(first: Array, second: Array) -> dict[str, Any] | None:
    """w1 - (1 - w0) in whole units of a power of two."""
    if not len(second) or not (least := float(second.min())) > 0 or not float(first.max()) <= 1:
        return None
    unit = 23 - int(np.floor(np.log2(least)))
    found = np.empty(len(second), np.int32)
    if not 23 <= unit <= 60 or not encoding_loops.rest(first, second, 2.0**unit, _FAR, found):
        return None
    return {"rest": pa.array(found), "unit": pa.repeat(pa.scalar(unit, pa.uint8()), len(second))}


def _steps(name: str, values: Array) -> dict[str, Any] | None:
    """Whole numbers of steps."""
    found = np.empty(len(values), np.int32)
    whole = encoding_loops.steps(values[:_LOOK], STEPS[name], found) and encoding_loops.steps(values, STEPS[name], found)
    return {f"{name}_n": pa.array(found)} if whole else None
