"""Tables of any origin: one row is one example, one column its text, others its labels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError
from . import conversations, media_talk, part_labels
from .cells import checked, label, plain
from .media_cells import media_columns, media_of, prompted, said_of
from .options import Options
from .types import Example

Row = Mapping[str, Any]


def examples(rows: Iterable[Row], columns: Sequence[str], options: Options, source: str) -> Iterator[Example]:
    """One example per row with text, each a document of its own; where there is no text but `input_ids`, of ids.

    The text is in the column asked for, else in `text`; conversations in a column of their own (conversations.py); an
    `attention_mask` beside ids says which are no padding. Raises InputError for a column that is not there and for a text that
    is neither a string nor ids.
    """
    given = "input_ids" if "text" not in columns and "input_ids" in columns else "text"
    column = options.text_column or conversations.column(columns, options) or given
    seen = media_columns(columns, options)
    if column not in columns and seen and options.text_column is None:
        prompted(seen, options, source)
    else:
        require([column], columns, source, options, "text_column")
    require(options.label_columns or (), columns, source, options, "label_columns")
    missing = Missing(options, source)
    for row, record in enumerate(rows):
        media = media_of(record, f"{source}, row {row}", options)
        text = said_of(media, plain(record.get(column)), f"{source}, row {row}", options)
        if text is None or (_is_empty(text) and not conversations.talks(column, text, options)):
            options.report.skip(source, "rows without text")
            continue
        if conversations.talks(column, text, options):
            text, media = media_talk.spoken(text, media, f"{source}, row {row}", options)
        left = {name: cell for name, cell in record.items() if name not in seen}
        yield replace(_example(left, text, column, source, row, options, missing), media=media)


def _example(record: Row, text: Any, column: str, source: str, row: int, options: Options, missing: "Missing") -> Example:
    """One row; InputError for what cannot be used."""
    where = f"{source}, row {row}"
    named = labels(record, options.label_columns, column, where, missing)
    if conversations.talks(column, text, options):
        part_labels.none(record, where)
        said, tools = conversations.messages(text, column, where), conversations.tools(record, where)
        return Example(source, row, f"{source}:{row}", labels=named, messages=said, tools=tools)
    if is_ids(text):
        kept = places(text, record.get("attention_mask"), where)
        parts = part_labels.of_ids(record, kept, where)
        return Example(source, row, f"{source}:{row}", labels=named, input_ids=ids(text, where)[kept], **parts)
    string = _string(text, column, where, options)
    return Example(source, row, f"{source}:{row}", string, labels=named, **part_labels.of_text(record, string, where))


def _is_empty(text: Any) -> bool:
    return not text.strip() if isinstance(text, str) else is_ids(text) and not len(text)


def require(wanted: Iterable[str], columns: Sequence[str], source: str, options: Options, option: str) -> None:
    """Raise InputError for the first wanted column that is not there."""
    for column in wanted:
        if column not in columns:
            there = ", ".join(columns) or "none"
            raise InputError(f"{source} has no column {column!r} (columns: {there}): name one with {options.flag(option)}.")


def is_ids(value: Any) -> bool:
    """Whether this is a row of vocabulary ids: a list, tuple or array of integers."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iu"
    whole = int | np.integer
    return isinstance(value, list | tuple) and all(isinstance(i, whole) and not isinstance(i, bool) for i in value)


def ids(value: Any, where: str) -> np.ndarray:
    """(T,) ids. Raises InputError for ids below 0."""
    found = np.asarray(value, dtype=np.int64)
    if found.size and found.min() < 0:
        raise InputError(
            f"{where}: {found.min()} is no vocabulary id (labels have such places, inputs do not): give ids from 0."
        )
    return found


def places(value: Any, mask: Any, where: str) -> np.ndarray:
    """(T,) which ids are no padding, by their mask if there is one. Raises InputError for a mask of another length."""
    if (mask := plain(mask)) is None:
        return np.ones(len(value), bool)
    keep = np.asarray(mask).astype(bool)
    if keep.shape != (len(value),):
        raise InputError(f"{where}: `attention_mask` has {keep.size} places but there are {len(value)} ids: make them alike.")
    return keep


class Missing:
    """Counts labels that are not there, of columns that hold labels elsewhere."""

    def __init__(self, options: Options, source: str) -> None:
        self.report, self.source, self.sure = options.report, source, set(options.label_columns or ())
        self._counts = Counter[str]()

    def lacks(self, column: str) -> None:
        """A row has none; that is said once a row has one."""
        self._counts[column] += 1
        if column in self.sure:
            self.has(column)

    def has(self, column: str) -> None:
        """A row has one."""
        self.sure.add(column)
        self.report.skip(self.source, f"missing labels of {column!r}", self._counts.pop(column, 0))


def labels(
    record: Row, wanted: Sequence[str] | None, text_column: str | None, where: str, missing: Missing | None = None
) -> dict[str, str]:
    """Wanted columns, or every column of strings, integers or truth values but the text; what is missing is left out."""
    asked = [c for c in record if c != text_column and not _taken(c, record[c])] if wanted is None else wanted
    cells = {c: plain(record.get(c)) for c in asked}
    found = {
        c: label(v, c, where) for c, v in cells.items() if v is not None and (wanted is not None or isinstance(v, str | int))
    }
    if missing is not None:
        for column, value in cells.items():
            if value is None:
                missing.lacks(column)
            elif column in found:
                missing.has(column)
    return found


def _string(value: Any, column: str, where: str, options: Options) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: column {column!r} holds {type(value).__name__} values, not texts; "
            f"name a column of texts with {options.flag('text_column')}."
        )
    return checked(value, column, where)


def _taken(column: str, cell: Any) -> bool:
    """Whether a cell labels parts of the row, and not the whole."""
    schemas = column == "tools" and isinstance(cell, str) and cell.lstrip()[:1] == "["  # of a conversation
    return schemas or (column in part_labels.COLUMNS and part_labels.holds_parts(cell))
