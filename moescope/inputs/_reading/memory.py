"""What lies in memory: frames, tables, columns, data sets; lists and generators of texts, of rows, of ids. Always its rows.

A frame's rows, a list of dicts and the rows of a file are read by the same rules (_rows.py); arrays by those of .npz.
No library is loaded to find out what something is: it is known by what it can do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from ...errors import InputError
from .. import arrow, hub, npz
from . import conversations, table_rows
from .labels.cells import checked, plain
from .options import Options
from .types import Example

FORMS = (
    "a path, a list (or generator) of texts, of dicts, of conversations or of token ids, a dict of columns, a pandas, polars "
    "or Arrow table, or a data set of Hugging Face"
)


def name(data: Any) -> str:
    """What to call it in examples, messages and the run."""
    if hasattr(data, "features") and hasattr(data, "info"):
        return str(getattr(data.info, "dataset_name", None) or "data set")
    if _is_table(data) or isinstance(data, Mapping):
        return "columns" if isinstance(data, Mapping) else type(data).__name__
    return "ids" if _array(data) is not None else "inputs"


def read_examples(data: Any, options: Options) -> Iterable[Example]:
    """Its examples, drawn one by one as they are asked for; InputError for what has no form that is read."""
    source = name(data)
    if hasattr(data, "collect") and hasattr(data, "lazy"):  # polars, not run yet
        data = data.collect()
    if isinstance(data, Mapping) and data and all(_is_table(v) or isinstance(v, Mapping) for v in data.values()):
        data = hub.pick_split(data, options, source)
    elif options.split is not None:
        hub.pick_split([], options, source)
    if hasattr(data, "features") and hasattr(data, "column_names"):
        return hub.of_data(data, options, source)
    if isinstance(data, Mapping):
        return _columns(dict(data), options, source)
    if _is_table(data):
        rows, columns = _table(data)
        return table_rows.examples(rows, columns, options, source) if columns else ()
    if (array := _array(data)) is not None:
        return _arrays(array, options, source)
    if isinstance(data, set | frozenset):
        raise InputError("a set has no order, so a trace of it could not be repeated: give a list")
    if isinstance(data, bytes | bytearray) or not isinstance(data, Iterable):
        raise InputError(f"inputs are {type(data).__name__}, which is nothing that is read: give {FORMS}")
    return _items(data, options, source)


def _is_table(data: Any) -> bool:
    """pandas, polars, Arrow, Hugging Face."""
    own = ("iterrows", "iter_rows", "to_pylist", "column_names", "collect_schema", "read_next_batch")
    said = ("columns", "column_names", "schema")
    return any(hasattr(type(data), way) for way in own) and any(hasattr(type(data), name) for name in said)


def _table(data: Any) -> tuple[Iterable[Mapping[str, Any]], list[str]]:
    """Rows and column names of a frame."""
    if hasattr(data, "iter_rows"):
        return data.iter_rows(named=True), list(data.columns)
    if hasattr(data, "to_pylist") or hasattr(data, "read_next_batch"):  # a table, a batch, a reader of batches
        batches = data.to_batches() if hasattr(data, "to_batches") else [data] if hasattr(data, "to_pylist") else data
        return arrow.rows(batches), list(data.schema.names)
    columns = [str(column) for column in data.columns]
    cells = [_whole(data.iloc[:, place]) for place in range(len(columns))]
    return (dict(zip(columns, row)) for row in zip(*cells)), columns


def _whole(column: Any) -> Any:
    """A pandas column; numbers that are floats only because some are missing as whole ones."""
    if getattr(column.dtype, "kind", "") == "f" and column.isna().any():
        there = column.dropna()
        if (there == there.round()).all() and np.isfinite(there).all():
            return [None if missing else int(value) for value, missing in zip(column, column.isna())]
    return column


def _array(data: Any) -> np.ndarray | None:
    """A NumPy array or a tensor of several dimensions, else None."""
    data = plain(data) if hasattr(data, "detach") else data
    return data if isinstance(data, np.ndarray) and (data.dtype.kind in "iufb" or data.ndim > 1) else None


def _arrays(array: np.ndarray, options: Options, source: str) -> Iterator[Example]:
    if array.ndim == 1 and array.dtype.kind in "iu":
        raise InputError("inputs are one row of ids: put it into a list, [ids]")
    if array.dtype == np.uint8 and array.ndim > 2:
        return npz.of_arrays({"images": array}, options, source)
    if array.dtype.kind in "iu" and array.ndim == 2:
        _unpadded(array, options)
    return npz.of_arrays({"input_ids": array}, options, source)


def _unpadded(rows: Sequence[Any] | np.ndarray, options: Options) -> None:
    """InputError where rows of one length may end in padding, which nothing but a mask could tell from ids that are meant."""
    pad = options.pad_id
    for number, row in enumerate(rows if pad is not None else ()):
        if len(row) and pad in (int(row[0]), int(row[-1])):
            raise InputError(
                f"ids, row {number}, begins or ends with {pad}, the model's padding, and nothing says whether it is: give "
                f"{{'input_ids': ..., 'attention_mask': ...}}, or lists without padding"
            )


def _columns(data: dict[str, Any], options: Options, source: str) -> Iterable[Example]:
    """A dict of columns; of arrays as .npz has them, those."""
    whole = {str(column): plain(values) for column, values in data.items()}
    if isinstance(whole.get("images"), np.ndarray):
        return npz.of_arrays({column: np.asarray(values) for column, values in whole.items()}, options, source)
    flat = [c for c, values in whole.items() if isinstance(values, str | bytes) or not hasattr(values, "__len__")]
    if flat:
        raise InputError(
            f"columns hold lists, one cell a row, but {flat[0]!r} is {type(data[flat[0]]).__name__}: give one row as [row]"
        )
    sizes = {column: len(values) for column, values in whole.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{column} {size}" for column, size in sizes.items())
        raise InputError(f"columns are of different lengths ({said}): make them alike")
    if "text" not in whole and "input_ids" in whole and "attention_mask" not in whole:
        _even(whole["input_ids"], options)
    rows = (dict(zip(whole, row)) for row in zip(*whole.values()))
    return table_rows.examples(rows, list(whole), options, source) if whole else ()


def _even(rows: Any, options: Options) -> None:
    """Look for padding among rows of ids that are all of one length."""
    if len(rows) and all(table_rows.is_ids(row) for row in rows) and len({len(row) for row in rows}) == 1:
        _unpadded(rows, options)


def _items(data: Iterable[Any], options: Options, source: str) -> Iterable[Example]:
    """Texts, rows, ids or examples, by what the first one is."""
    items = iter(data)
    first = next((item for item in items), None)
    missing = 0
    while first is not None and plain(first) is None:
        first, missing = next(items, None), missing + 1
    options.report.skip(source, "missing texts", missing)
    if first is None:
        return ()
    items = chain([first], items)
    if isinstance(first, str):
        return _texts(items, options, missing)
    if isinstance(first, Example):
        return (_same(item, Example, source) for item in items)
    if isinstance(first, Mapping):
        if {"role", "content"} <= set(first) or {"from", "value"} <= set(first):
            raise InputError("inputs are the messages of one conversation: put them into a list, [messages]")
        return table_rows.examples((_row(item, source) for item in items), None, options, source)
    if conversations.is_messages(first):
        rows = ({"messages": item} for item in items)
        return table_rows.examples(rows, ["messages"], replace(options, chat=True, text_column=None), "conversations")
    if isinstance(first, int | np.integer) and not isinstance(first, bool):
        raise InputError("inputs are one row of ids: put it into a list, [ids]")
    if table_rows.is_ids(plain(first)):
        if isinstance(data, Sequence):
            _even([plain(row) for row in data], options)
        return _ids(items, options)
    raise InputError(f"inputs hold {type(first).__name__} values, which are nothing that is read: give {FORMS}")


def _same(item: Any, kind: type, source: str) -> Any:
    if not isinstance(item, kind):
        raise InputError(f"{source} hold {kind.__name__} and {type(item).__name__} values: give one kind")
    return item


def _row(item: Any, source: str) -> Mapping[str, Any] | InputError:
    try:
        return _same(item, Mapping, source)
    except InputError as error:
        return error


def _texts(items: Iterable[Any], options: Options, first: int) -> Iterator[Example]:
    for row, text in enumerate(items, first):
        if plain(text) is None or (isinstance(text, str) and not text.strip()):
            options.report.skip("texts", "empty texts")
            continue
        try:
            yield Example("texts", row, str(row), checked(_same(text, str, "inputs"), "text", f"texts, row {row}"))
        except InputError as error:
            options.report.bad("texts", error)


def _ids(items: Iterable[Any], options: Options) -> Iterator[Example]:
    for row, item in enumerate(items):
        found = plain(item)
        if table_rows.is_ids(found) and not len(found):
            options.report.skip("ids", "empty rows")
            continue
        try:
            yield Example("ids", row, f"ids:{row}", input_ids=_checked_ids(item, found, row))
        except InputError as error:
            options.report.bad("ids", error)


def _checked_ids(item: Any, found: Any, row: int) -> np.ndarray:
    if not table_rows.is_ids(found):
        raise InputError(f"ids, row {row}, is {type(item).__name__} and no row of ids, as those before it: give one kind")
    return table_rows.ids(found, f"ids, row {row}")
