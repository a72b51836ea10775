"""Tables of any origin: one row is one example, one column its text, others its labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from moescope.errors import InputError
from moescope.inputs._options import Options, as_flag
from moescope.inputs._types import Example

Row = Mapping[str, Any]


def examples(rows: Iterable[Row], columns: Sequence[str], options: Options, source: str) -> Iterator[Example]:
    """One example per row with text, each a document of its own.

    Raises InputError for a column that is not there and for a text that is not a string.
    """
    text_column = options.text_column or "text"
    require([text_column], columns, source, "text_column")
    require(options.label_columns or (), columns, source, "label_columns")
    for row, record in enumerate(rows):
        text = record.get(text_column)
        if text is None or (isinstance(text, str) and not text.strip()):
            options.report.skip(source, "rows without text")
            continue
        where = f"{source}, row {row}"
        yield Example(
            source,
            row,
            f"{source}:{row}",
            _string(text, text_column, where),
            labels=labels(record, options.label_columns, text_column, where),
        )


def require(wanted: Iterable[str], columns: Sequence[str], source: str, flag: str) -> None:
    """Raise InputError for the first wanted column that is not there."""
    for column in wanted:
        if column not in columns:
            there = ", ".join(columns) or "none"
            raise InputError(f"{source} has no column {column!r} (columns: {there}): name one with {as_flag(flag)}.")


def labels(record: Row, wanted: Sequence[str] | None, text_column: str | None, where: str) -> dict[str, str]:
    """Wanted columns, or every column of strings, integers or truth values but the text; nulls are left out."""
    if wanted is None:
        wanted = [c for c, value in record.items() if isinstance(value, str | int) and c != text_column]
    return {_string(c, c, where): _label(record[c], c, where) for c in wanted if record.get(c) is not None}


def _label(value: Any, column: str, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict | bytes):
        raise InputError(f"{where}: column {column!r} holds {type(value).__name__} values, which cannot be labels.")
    return _string(str(value), column, where)


def _string(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: column {column!r} holds {type(value).__name__} values, not texts; "
            f"name a column of texts with --text-column."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: column {column!r} holds half a surrogate pair at character {error.start}, "
            f"which is no character; repair the text."
        ) from None
    return value
