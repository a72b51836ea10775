"""Labels of parts of a row, in the columns `spans`, `words` and `token_labels`.

spans         of a text: a list of {start, end, kind, value}; a phrase, a sentence, a turn, a paragraph, of any length
words         of a text: a list of {start, end, KIND: value, ...}; words are numbered, and each has any labels
token_labels  of `input_ids`: {KIND: [value of each id, or null]}

start (inclusive) and end (exclusive) count characters (Unicode code points) of the text, from 0. A cell may be JSON, as in CSV.
A number or word in a column of these names is a label of the row like any other, and a list of plain words is none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....errors import InputError
from ..types import Span, Word
from .cells import label, plain

COLUMNS = ("spans", "words", "token_labels")
_FORM = {"spans": "a list of {start, end, kind, value}", "words": "a list of {start, end, KIND: value}",
         "token_labels": "an object {KIND: [value of each id]}"}  # fmt: skip
_KEYS = {"start", "end", "kind", "value"}


def of_text(row: Mapping[str, Any], text: str, where: str) -> dict[str, Any]:
    """The fields `spans` and `words` of an Example; InputError for what has another form, or lies outside the text."""
    if _cell(row, "token_labels", where) is not None:
        raise InputError(f"{where}: `token_labels` go with `input_ids`; of a text, label characters with `spans`")
    spans = tuple(_span(item, text, f"{where}, span {n}") for n, item in enumerate(_items(row, "spans", where)))
    words = tuple(_word(item, text, f"{where}, word {n}") for n, item in enumerate(_items(row, "words", where)))
    twice = {span.kind for span in spans} & {kind for word in words for kind in word.labels}
    if twice:
        raise InputError(f"{where}: {min(twice)!r} is a kind of `spans` and of `words`: call one of them otherwise")
    return {name: found for name, found in (("spans", spans), ("words", words)) if found}


def of_ids(row: Mapping[str, Any], kept: Sequence[bool] | np.ndarray, where: str) -> dict[str, Any]:
    """The field `token_labels` of an Example whose ids are those `kept`; InputError for labels that do not go with them."""
    for name in ("spans", "words"):
        if _cell(row, name, where):
            raise InputError(f"{where}: `{name}` count characters of a text, but this row is ids; give `token_labels`")
    cell = _cell(row, "token_labels", where)
    if cell is None:
        return {}
    if not isinstance(cell, Mapping):
        raise _form("token_labels", cell, where)
    return {"token_labels": {k: _each(v, k, kept, where) for k, v in cell.items() if v is not None}}


def none(row: Mapping[str, Any], where: str) -> None:
    """InputError for labels of parts of a conversation, whose text a tokenizer's template makes."""
    if name := next((name for name in COLUMNS if _cell(row, name, where)), None):
        raise InputError(f"{where}: `{name}` label parts of a text, but this row is a conversation; its parts have their roles")


def _each(values: Any, kind: str, kept: Sequence[bool] | np.ndarray, where: str) -> list[str | None]:
    if isinstance(values, str) or not isinstance(values, list | tuple | np.ndarray):
        raise _form("token_labels", values, where)
    if len(values) != len(kept):
        raise InputError(
            f"{where}: `token_labels` has {len(values)} of {kind!r} but there are {len(kept)} ids: make them alike"
        )
    cells = [plain(value) for value, keep in zip(values, kept) if keep]
    return [None if cell is None else label(cell, kind, where) for cell in cells]


def holds_parts(cell: Any) -> bool:
    """Whether a cell of one of these columns is meant as above."""
    return isinstance(cell, list | tuple | dict | np.ndarray) or (isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"))


def _cell(row: Mapping[str, Any], name: str, where: str) -> Any:
    """What a row has there, None where it is nothing of ours."""
    found = row.get(name)
    if not holds_parts(found):
        return None
    if not isinstance(found, str):
        return found
    try:
        return json.loads(found)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: `{name}` is a text that is not JSON: give {_FORM[name]}") from None


def _items(row: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]]:
    cell = _cell(row, name, where)
    if (
        isinstance(cell, Mapping)
        and len({len(v) if isinstance(v, list | np.ndarray) else -1 for v in cell.values()} - {-1}) == 1
    ):
        cell = [dict(zip(cell, values)) for values in zip(*cell.values())]  # some data sets hold an object of lists
    items = [] if cell is None else list(cell) if isinstance(cell, list | tuple | np.ndarray) else None
    if items is None:
        raise _form(name, cell, where)
    if name == "words" and not any(isinstance(item, Mapping) for item in items):
        return []
    for item in items:
        if not isinstance(item, Mapping) or not {"start", "end"} <= item.keys():
            raise _form(name, item, where)
    return items


def _form(name: str, found: Any, where: str) -> InputError:
    said = f"an object of {', '.join(map(str, found)) or 'nothing'}" if isinstance(found, Mapping) else type(found).__name__
    return InputError(f"{where}: `{name}` holds {said}: give {_FORM[name]}, or call the column otherwise")


def _span(item: Mapping[str, Any], text: str, where: str) -> Span:
    if absent := [name for name in ("kind", "value") if plain(item.get(name)) is None or item[name] == ""]:
        raise InputError(f"{where} has no {absent[0]!r}: give {_FORM['spans']}")
    if more := {name for name, value in item.items() if name not in _KEYS and value is not None}:
        raise InputError(f"{where} has {min(more)!r}, which is not read: give {_FORM['spans']}, or several spans")
    start, end = _place(item, text, where)
    return Span(start, end, label(item["kind"], "kind", where), label(plain(item["value"]), "value", where))


def _word(item: Mapping[str, Any], text: str, where: str) -> Word:
    start, end = _place(item, text, where)
    cells = {str(kind): plain(value) for kind, value in item.items() if kind not in ("start", "end")}
    return Word(start, end, {kind: label(value, kind, where) for kind, value in cells.items() if value is not None})


def _place(item: Mapping[str, Any], text: str, where: str) -> tuple[int, int]:
    """InputError unless start and end are whole numbers inside the text."""
    found = [plain(item[name]) for name in ("start", "end")]
    for name, value in zip(("start", "end"), found):
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{where}: {name} is {value!r}: give the number of a character, from 0")
    start, end = found
    if not 0 <= start <= end <= len(text):
        raise InputError(
            f"{where} is of characters {start} to {end}, but its text has {len(text)}: count them from 0, the end exclusive"
        )
    return start, end
