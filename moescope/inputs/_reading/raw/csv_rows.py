"""Rows of CSV and TSV: every cell is a text, and what it means is said by the cell alone, so that any file can be streamed.

An empty cell (and NaN) is missing; True and False are truth values; what is written as a fraction is a number, and so no label
unless it is asked for. Everything else is as it is written: 007 stays 007.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ....errors import InputError
from ..options import Options

_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_MEANT = {"": None, "NaN": None, "nan": None, "True": True, "False": False, "true": True, "false": False}
_LONGEST = 1 << 30  # characters of a cell


def columns_and_rows(
    found: Iterable[str | InputError], delimiter: str, options: Options, source: str
) -> tuple[list[str], Iterator[Mapping[str, Any] | InputError]]:
    """The header, and the rows; an error stands for a row that is none. InputError for a header that names a column twice."""
    csv.field_size_limit(max(_LONGEST, csv.field_size_limit()))
    reader = csv.reader(_whole(found, options, source), delimiter=delimiter, strict=True)
    header = next(_cells(reader, source), [])
    if isinstance(header, InputError):
        raise header
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{source} names the column {twice[0]!r} twice: give each a name of its own.")
    meant = dict.fromkeys(header, _meant) | dict.fromkeys(options.label_columns or (), _asked)
    meant[options.text_column or "text"] = _text
    return header, (_row(header, cells, f"{source}, row {row}", meant) for row, cells in enumerate(_cells(reader, source)))


def _whole(found: Iterable[str | InputError], options: Options, source: str) -> Iterator[str]:
    for line in found:
        if isinstance(line, InputError):
            options.report.bad(source, line)
        else:
            yield line


def _cells(reader: Any, source: str) -> Iterator[list[str] | InputError]:
    """Lines with cells; empty ones are none."""
    while True:
        try:
            if cells := next(reader, None):
                yield cells
            elif cells is None:
                return
        except csv.Error as error:
            yield InputError(f"{source}, line {reader.line_num} is no row of a table ({error}): repair it.")


def _row(
    header: list[str], cells: list[str] | InputError, where: str, meant: Mapping[str, Callable[[str], Any]]
) -> Mapping[str, Any] | InputError:
    if isinstance(cells, InputError):
        return cells
    if len(cells) != len(header):
        return InputError(f"{where} is of another length than the header ({len(cells)} and {len(header)} cells): repair it.")
    return {name: meant[name](cell) for name, cell in zip(header, cells)}


def _text(cell: str) -> str | None:
    return cell or None


def _asked(cell: str) -> str | bool | None:
    return _MEANT.get(cell, cell)


def _meant(cell: str) -> str | bool | float | None:
    return float(cell) if _FRACTION.fullmatch(cell) else _asked(cell)
