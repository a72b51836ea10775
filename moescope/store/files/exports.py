"""Rows that leave as CSV, JSON or Parquet, piece by piece: any number of them takes the memory of one piece.

CSV is made to be opened in a spreadsheet: text that one of these would take for a formula gets a quotation mark in front.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO, TextIO

import duckdb

from ...errors import InputError
from ..column_fit import plain

FORMS = ("csv", "json", "parquet")
_PIECE = 1 << 15  # rows
_END = "\r\n"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what begins one, also in full width
_TEXT = {"varchar", "json", "list", "array", "map", "struct", "union", "enum", "blob", "bit", "variant"}


def export(relation: duckdb.DuckDBPyRelation, form: str, file: BinaryIO, raw: bool = False) -> None:
    """Write all rows of a query to `file` as one of FORMS; `raw`: text of CSV as it is. InputError if the query fails."""
    if form == "csv":
        _csv(relation, file, raw)
    else:
        {"json": _json, "parquet": _parquet}[form](relation, file)


def harmless(value: Any) -> Any:
    """A cell of a spreadsheet: text that would be a formula there has a quotation mark in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def csv_of(frame: Any) -> str:
    """A pandas frame as CSV that a spreadsheet can open."""
    found = frame.copy(deep=False)
    for number, kind in enumerate(frame.dtypes):
        if kind.kind == "O" or kind.name in ("category", "string", "str"):
            found.isetitem(number, frame.iloc[:, number].astype(object).map(harmless))
    text = io.StringIO()
    found.to_csv(_Lines(text), index=False, header=[harmless(str(name)) for name in frame.columns], lineterminator=_END)
    return text.getvalue()


class _Lines(io.TextIOBase):
    """Lines that Python ends with a carriage return too, without it: only so does it put text that has one in quotes."""

    def __init__(self, text: TextIO) -> None:
        self._text = text

    def write(self, line: str) -> int:
        """One line, its end included."""
        return self._text.write(line.removesuffix(_END) + "\n")


def _csv(relation: duckdb.DuckDBPyRelation, file: BinaryIO, raw: bool) -> None:
    risky = [number for number, kind in enumerate(relation.types) if str(kind.id) in _TEXT and not raw]
    pieces = _columns(_reader(relation, ["::varchar"] * len(relation.columns)))
    first = next(pieces, [])  # a query that fails, or that nobody waits for, leaves no names of columns behind
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(_Lines(text), lineterminator=_END)
    try:
        writer.writerow(relation.columns if raw else map(harmless, relation.columns))
        for columns in chain([first] if first else [], pieces):
            for number in risky:
                columns[number] = list(map(harmless, columns[number]))
            writer.writerows(zip(*columns))
    finally:
        text.detach()


def _json(relation: duckdb.DuckDBPyRelation, file: BinaryIO) -> None:
    names = _distinct(relation.columns)
    exact = ["::varchar::double" if str(kind.id) == "float" else "" for kind in relation.types]
    before = b"[\n"
    for columns in _columns(_reader(relation, exact)):
        for row in zip(*columns):
            file.write(before + json.dumps(plain(dict(zip(names, row))), default=_said, ensure_ascii=False).encode())
            before = b",\n"
    file.write(b"[]\n" if before == b"[\n" else b"\n]\n")


def _parquet(relation: duckdb.DuckDBPyRelation, file: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = _distinct(relation.columns)
    reader = _reader(relation, [""] * len(names))
    schema = pa.schema([field.with_name(name) for name, field in zip(names, reader.schema)])
    with pq.ParquetWriter(file, schema) as writer:
        for piece in _pieces(reader):
            writer.write_batch(pa.RecordBatch.from_arrays(piece.columns, schema=schema))


def _reader(relation: duckdb.DuckDBPyRelation, casts: Sequence[str]) -> Any:
    """The rows as Arrow batches, as they are computed; columns by place, since two may have one name."""
    columns = ", ".join(f"#{number}{cast} as c{number}" for number, cast in enumerate(casts, 1))
    return relation.project(columns).to_arrow_reader(_PIECE)


def _pieces(reader: Any) -> Iterator[Any]:
    try:
        yield from reader
    except OSError as error:  # Arrow's word for what DuckDB says while the rows come
        raise InputError(f"the query cannot be answered: {' '.join(str(error).split())[:400]}") from error


def _columns(reader: Any) -> Iterator[list[list[Any]]]:
    for piece in _pieces(reader):
        yield [column.to_pylist() for column in piece.columns]


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, where two are the same with a number behind."""
    found: list[str] = []
    for name in names:
        free = (other for number in range(len(names)) if (other := f"{name}_{number}" if number else name) not in found)
        found.append(next(free))
    return found


def _said(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
