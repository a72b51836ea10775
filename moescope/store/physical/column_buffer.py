"""Rows that gather in memory: numbers in columns that are kept from shard to shard, words and lists piece by piece.

Fresh memory for every shard would cost more than what is written into it, since the kernel clears it page by page; and every
step over many rows is one call, because a thread that computes has to wait for the interpreter after each.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]
_FIRST = 1 << 12  # rows


class ColumnBuffer:
    """Rows of one table."""

    def __init__(self) -> None:
        self.length = 0
        self._columns: dict[str, _NumericColumn | _ChunkedColumn] = {}

    def add(self, columns: Mapping[str, Any]) -> int:
        """Add rows: equally long arrays (NumPy, Arrow, lists), or single values that hold for all of them; gives how many."""
        length = next((len(c) for c in columns.values() if _is_column(c)), 1)
        if length:
            for name, values in ((name, v) for name, v in columns.items() if v is not None):
                column = self._columns.get(name)
                if column is None or (isinstance(column, _NumericColumn) and not _numeric(values)):
                    column = self._columns[name] = self._kind(column, values)
                column.write(self.length, length, values)
        self.length += length
        return length

    def _kind(self, old: "_NumericColumn | _ChunkedColumn | None", values: Any) -> "_NumericColumn | _ChunkedColumn":
        if _numeric(values):
            return _NumericColumn()
        pieces = _ChunkedColumn()
        if old is not None and old.length:
            pieces.write(0, old.length, old.array(old.length))
        return pieces

    def cut(self, length: int) -> None:
        """Forget the rows from `length` on, which is where some were added."""
        self.length = length
        for column in self._columns.values():
            column.cut(length)

    def table(self) -> pa.Table:
        """All rows; good until something is added. A column that some rows lack is null there."""
        return pa.table({name: column.array(self.length) for name, column in self._columns.items() if column.length})


class _NumericColumn:
    """A buffer; and where something is missing, a second one that says where."""

    def __init__(self) -> None:
        self.length = 0
        self._values = np.empty(0, np.int8)
        self._there: Array | None = None

    def write(self, start: int, length: int, values: Any) -> None:
        """Write (length,) rows from row `start` on; what lies between is missing."""
        there = None
        if not isinstance(values, np.ndarray) and isinstance(values, pa.Array | pa.ChunkedArray):
            if values.null_count:
                there = np.asarray(values.is_valid())
                values = values.fill_null(pa.scalar(0, values.type))
            values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            values = values.to_numpy(zero_copy_only=False)
        values = np.asarray(values)
        self._grow(start + length, values.dtype)
        if there is not None or start > self.length or self._there is not None:
            self._mark(start, start + length, True if there is None else there)
        self._values[start : start + length] = values
        self.length = start + length

    def _grow(self, rows: int, kind: np.dtype[Any]) -> None:
        if self.length and kind != self._values.dtype:
            whole = kind.kind in "iu" and self._values.dtype.kind in "iu"
            kind = np.dtype(np.int64) if whole else np.promote_types(kind, self._values.dtype)
        if rows > len(self._values) or kind != self._values.dtype:
            old, self._values = self._values, np.empty(max(_FIRST, 1 << (rows - 1).bit_length()), kind)
            self._values[: self.length] = old[: self.length]

    def _mark(self, start: int, stop: int, there: Any) -> None:
        old = self._there
        if old is None or len(old) < len(self._values):
            self._there = np.ones(len(self._values), bool)
            self._there[: self.length] = True if old is None else old[: self.length]
        assert self._there is not None
        self._there[self.length : start] = False
        self._there[start:stop] = there

    def cut(self, length: int) -> None:
        """Forget the rows from `length` on."""
        self.length = min(self.length, length)
        self._there = self._there if length else None

    def array(self, length: int) -> pa.Array:
        """The first `length` rows, null where nothing is."""
        there = None if self._there is None else self._there[: self.length]
        mask = None if there is None or there.all() else ~there
        found = pa.array(self._values[: self.length], mask=mask)
        return found if length == self.length else pa.concat_arrays([found, pa.nulls(length - self.length, found.type)])


class _ChunkedColumn:
    """What was added, as it came."""

    def __init__(self) -> None:
        self.length = 0
        self._pieces: list[tuple[int, Any]] = []

    def write(self, start: int, length: int, values: Any) -> None:
        """Note (length,) rows, or one value for all of them, from row `start` on; what lies between is missing."""
        if start > self.length:
            self._pieces.append((start - self.length, None))
        self._pieces.append((length, values))
        self.length = start + length

    def cut(self, length: int) -> None:
        """Forget the rows from `length` on."""
        while self.length > length:
            rows, value = self._pieces.pop()
            keep = max(rows - (self.length - length), 0)
            self.length -= rows - keep
            if keep:
                self._pieces.append((keep, value[:keep] if _is_column(value) else value))

    def array(self, length: int) -> pa.Array:
        """The first `length` rows, null where nothing is."""
        pieces = self._pieces + [(length - self.length, None)] * (length > self.length)
        first = pieces[0][1]
        if isinstance(first, str) and all(isinstance(value, str) and value == first for _, value in pieces):
            return pa.repeat(pa.scalar(first), length)
        arrays = [array for rows, value in pieces for array in _arrays(value, rows)]
        kinds = {a.type for a in arrays if not pa.types.is_null(a.type)}
        kind = kinds.pop() if len(kinds) == 1 else pa.unify_schemas(
            [pa.schema([("x", k)]) for k in kinds] or [pa.schema([("x", pa.null())])], promote_options="permissive"
        ).field("x").type  # fmt: skip
        return pa.concat_arrays([array.cast(kind) for array in arrays])


def numbers(column: pa.ChunkedArray, empty: float | None = None) -> Array:
    """A column without copying where it is one chunk; `empty` in place of null (else NaN)."""
    if column.null_count and empty is not None:
        column = column.fill_null(pa.scalar(empty, column.type))
    chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def width(names: Iterable[str]) -> int:
    """The k of columns e0, e1, ..."""
    return sum(name[0] == "e" and name[1:].isdigit() for name in names)


def _is_column(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | pa.Array | pa.ChunkedArray)


def _numeric(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iufb"
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return pa.types.is_integer(value.type) or pa.types.is_floating(value.type)
    return isinstance(value, int | float | np.number | np.bool_)


def _arrays(value: Any, length: int) -> list[pa.Array]:
    if isinstance(value, pa.ChunkedArray):
        return list(value.chunks)
    if isinstance(value, pa.Array):
        return [value]
    return [pa.array(value) if _is_column(value) else pa.repeat(pa.scalar(value), length)]
