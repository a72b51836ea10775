"""Tables of any origin: one row is one example, one column its text, others its labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from ...errors import InputError
from . import conversations
from .labels import part_labels
from .labels.cells import checked, plain
from .labels.row_labels import RowLabels
from .media import media_talk
from .media.media_cells import COLUMNS, media_columns, media_of, prompted, said_of
from .options import Options
from .types import Example

Row = Mapping[str, Any]
_LOOK = 1000  # rows that are looked through for a column


def examples(
    rows: Iterable[Row | InputError], columns: Sequence[str] | None, options: Options, source: str
) -> Iterator[Example]:
    """One example per row with text, each a document of its own; where there is no text but `input_ids`, of ids.

    `columns`: where they are known before the rows; else those of the first rows, up to one with what is asked for. An error
    among the rows stands for one that cannot be read. The text is in the column asked for, else in `text`; conversations are in
    a column of their own (conversations.py); an `attention_mask` beside ids says which are no padding. Raises InputError for a
    column that is not there and for a text that is neither a string nor ids.
    """
    numbered: Iterable[tuple[int, Row]] = _numbered(rows, options, source)
    if columns is None:
        columns, numbered = _look(iter(numbered), options)
        if not numbered:
            return
    given = "input_ids" if "text" not in columns and "input_ids" in columns else "text"
    column = options.text_column or conversations.column(columns, options) or given
    seen = media_columns(columns, options)
    if column not in columns and seen and options.text_column is None:
        prompted(seen, options, source)
    else:
        require([column], columns, source, options, "text_column")
    require(options.label_columns or (), columns, source, options, "label_columns")
    labels = RowLabels(options, source)
    for row, record in numbered:
        try:
            example = _example(record, column, source, row, options, labels)
        except InputError as error:
            options.report.bad(source, error)
        else:
            if example is not None:
                yield example


def _numbered(rows: Iterable[Row | InputError], options: Options, source: str) -> Iterator[tuple[int, Row]]:
    for row, record in enumerate(rows):
        if isinstance(record, InputError):
            options.report.bad(source, record)
        else:
            yield row, record


def _look(rows: Iterator[tuple[int, Row]], options: Options) -> tuple[list[str], Iterable[tuple[int, Row]]]:
    """The columns of the first rows, no more of which are drawn than it takes to meet what is asked for; and all rows."""
    drawn: list[tuple[int, Row]] = []
    columns: dict[str, None] = {}
    texts = {options.text_column} if options.text_column else {"text", "input_ids", *conversations.COLUMNS}
    texts = {*COLUMNS, *texts} if options.prompt is not None and options.text_column is None else texts
    asked = set(options.label_columns or ())
    for number, row in islice(rows, _LOOK):
        drawn.append((number, row))
        columns |= dict.fromkeys(row)
        if texts & columns.keys() and asked <= columns.keys():
            break
    return list(columns), chain(drawn, rows) if drawn else ()


def _example(record: Row, column: str, source: str, row: int, options: Options, labels: RowLabels) -> Example | None:
    """One row, None where it has no text; InputError for what cannot be used."""
    where = f"{source}, row {row}"
    media = media_of(record, where, options)
    text = said_of(media, plain(record.get(column)), where, options)
    if text is None or (_is_empty(text) and not conversations.talks(column, text, options)):
        options.report.skip(source, "rows without text")
        return None
    left = media_columns(record, options)
    named = labels.of({name: cell for name, cell in record.items() if name not in left}, column, where)
    if conversations.talks(column, text, options):
        part_labels.none(record, where)
        text, media = media_talk.spoken(text, media, where, options)
        said, tools = conversations.messages(text, column, where), conversations.tools(record, where)
        return Example(source, row, f"{source}:{row}", labels=named, messages=said, tools=tools, media=media)
    if is_ids(text):
        kept = places(text, record.get("attention_mask"), where)
        parts = part_labels.of_ids(record, kept, where)
        return Example(source, row, f"{source}:{row}", labels=named, input_ids=ids(text, where)[kept], media=media, **parts)
    string = _string(text, column, where, options)
    parts = part_labels.of_text(record, string, where)
    return Example(source, row, f"{source}:{row}", string, labels=named, media=media, **parts)


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


def _string(value: Any, column: str, where: str, options: Options) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: column {column!r} holds {type(value).__name__} values, not texts; "
            f"name a column of texts with {options.flag('text_column')}."
        )
    return checked(value, column, where)
