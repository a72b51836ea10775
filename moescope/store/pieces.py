"""Rows that gathered in memory, put together once: NumPy columns are joined by copying, never value by value."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

Piece = tuple[int, Mapping[str, Any]]
"""(rows, columns): equally long arrays, or single values that hold for all rows."""


def piece(columns: Mapping[str, Any]) -> Piece:
    """Note how many rows some columns have."""
    return next((len(c) for c in columns.values() if _is_column(c)), 1), columns


def assemble(pieces: list[Piece]) -> pa.Table:
    """One table of all pieces in order; a column that some lack is null there."""
    names = dict.fromkeys(name for _, columns in pieces for name in columns)
    return pa.table({name: _join([(length, columns.get(name)) for length, columns in pieces]) for name in names})


def numbers(column: pa.ChunkedArray, empty: float | None = None) -> "np.ndarray[Any, Any]":
    """A column without copying where it is one chunk; `empty` in place of null (else NaN)."""
    if column.null_count and empty is not None:
        column = column.fill_null(pa.scalar(empty, column.type))
    chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def width(names: Iterable[str]) -> int:
    """The k of columns e0, e1, ..."""
    return sum(name[0] == "e" and name[1:].isdigit() for name in names)


def _join(parts: list[tuple[int, Any]]) -> pa.Array | pa.ChunkedArray:
    values = [value for _, value in parts]
    if all(isinstance(value, np.ndarray) for value in values):
        return pa.array(np.concatenate(values))
    if all(isinstance(value, np.ndarray | np.number) for value in values):
        if all(isinstance(value, np.number) and value == values[0] for value in values):
            return pa.repeat(pa.scalar(values[0]), sum(length for length, _ in parts))
        return pa.array(np.concatenate([np.broadcast_to(value, length) for length, value in parts]))
    arrays = [_array(value, length) for length, value in parts]
    kinds = {a.type for a in arrays if not pa.types.is_null(a.type)}
    kind = kinds.pop() if len(kinds) == 1 else pa.unify_schemas(
        [pa.schema([("x", k)]) for k in kinds] or [pa.schema([("x", pa.null())])], promote_options="permissive"
    ).field("x").type  # fmt: skip
    chunks = [chunk for a in arrays for chunk in (a.chunks if isinstance(a, pa.ChunkedArray) else [a])]
    return pa.chunked_array([c.cast(kind) for c in chunks], kind)


def _is_column(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | pa.Array | pa.ChunkedArray)


def _array(value: Any, length: int) -> pa.Array | pa.ChunkedArray:
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value
    return pa.array(value) if _is_column(value) else pa.repeat(pa.scalar(value), length)
