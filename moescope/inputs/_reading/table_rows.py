"""Tables of any origin: one row is one example, one column its text, others its labels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .media_cells import media_columns, media_of, said_of
from .options import Options
from .types import Example

Row = Mapping[str, Any]


def examples(rows: Iterable[Row], columns: Sequence[str], options: Options, source: str) -> Iterator[Example]:
    """One example per row with text, each a document of its own; where there is no text but `input_ids`, of ids.

    The text is in the column asked for, else in `text`; an `attention_mask` beside ids says which are no padding. Raises
    InputError for a column that is not there and for a text that is neither a string nor ids.
    """
    given = "input_ids" if "text" not in columns and "input_ids" in columns else "text"
    column = options.text_column or given
    if not (options.text_column is None and options.prompt is not None and media_columns(columns, options)):
        require([column], columns, source, options, "text_column")
    require(options.label_columns or (), columns, source, options, "label_columns")
    missing = Missing(options, source)
    for row, record in enumerate(rows):
        where = f"{source}, row {row}"
        media = media_of(record, where, options)
        text = said_of(media, plain(record.get(column)), where, options)
        if (
            text is None
            or (isinstance(text, str) and not text.strip())
            or (not isinstance(text, str) and is_ids(text) and not len(text))
        ):
            options.report.skip(source, "rows without text")
            continue
        left = {name: cell for name, cell in record.items() if name not in media_columns(columns, options)}
        named = labels(left, options.label_columns, column, where, missing)
        if is_ids(text):
            yield Example(
                source, row, f"{source}:{row}", labels=named, input_ids=ids(text, record.get("attention_mask"), where)
            )
        else:
            string = _string(text, column, where, options)
            yield Example(source, row, f"{source}:{row}", string, labels=named, media=media)


def require(wanted: Iterable[str], columns: Sequence[str], source: str, options: Options, option: str) -> None:
    """Raise InputError for the first wanted column that is not there."""
    for column in wanted:
        if column not in columns:
            there = ", ".join(columns) or "none"
            raise InputError(f"{source} has no column {column!r} (columns: {there}): name one with {options.flag(option)}.")


def plain(value: Any) -> Any:
    """A cell as Python has it; None for what is missing (None, NaN, NA, NaT)."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return None
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def is_ids(value: Any) -> bool:
    """Whether this is a row of vocabulary ids: a list, tuple or array of integers."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iu"
    whole = int | np.integer
    return isinstance(value, list | tuple) and all(isinstance(i, whole) and not isinstance(i, bool) for i in value)


def ids(value: Any, mask: Any, where: str) -> np.ndarray:
    """(T,) ids, those left out where the mask is 0. Raises InputError for ids below 0 and a mask of another length."""
    found = np.asarray(value, dtype=np.int64)
    if found.size and found.min() < 0:
        raise InputError(
            f"{where}: {found.min()} is no vocabulary id (labels have such places, inputs do not): give ids from 0."
        )
    if (mask := plain(mask)) is None:
        return found
    keep = np.asarray(mask).astype(bool)
    if keep.shape != found.shape:
        raise InputError(f"{where}: `attention_mask` has {keep.size} places but there are {found.size} ids: make them alike.")
    return found[keep]


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
    cells = {c: plain(record.get(c)) for c in (record if wanted is None else wanted) if c != text_column or wanted is not None}
    found = {
        c: _label(v, c, where) for c, v in cells.items() if v is not None and (wanted is not None or isinstance(v, str | int))
    }
    if missing is not None:
        for column, value in cells.items():
            if value is None:
                missing.lacks(column)
            elif column in found:
                missing.has(column)
    return found


def _label(value: Any, column: str, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict | bytes | np.ndarray):
        raise InputError(f"{where}: column {column!r} holds {type(value).__name__} values, which cannot be labels.")
    return checked(str(value), column, where)


def _string(value: Any, column: str, where: str, options: Options) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: column {column!r} holds {type(value).__name__} values, not texts; "
            f"name a column of texts with {options.flag('text_column')}."
        )
    return checked(value, column, where)


def checked(value: str, column: str, where: str) -> str:
    """A string, if UTF-8 can say it; else InputError."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: column {column!r} holds half a surrogate pair at character {error.start}, "
            f"which is no character; repair the text."
        ) from None
    return value
