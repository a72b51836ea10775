"""Does a value fit the column that it is for? Asked before anything is computed for it, in the words of schema.sql."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from ..errors import InputError
from .trust import expected

_WHOLE = {
    f"{sign}{name}": bits
    for name, bits in (("TINYINT", 8), ("SMALLINT", 16), ("INTEGER", 32), ("BIGINT", 64))
    for sign in ("", "U")
}
_ARROW = {"VARCHAR": pa.string(), "JSON": pa.string(), "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}
_ARROW |= {"FLOAT[]": pa.list_(pa.float32()), "BLOB": pa.binary()}
_ARROW |= {name: getattr(pa, f"{'u' * (name[0] == 'U')}int{bits}")() for name, bits in _WHOLE.items()}


def check(table: str, **values: Any) -> None:
    """InputError unless these values fit the columns of `table` that they are named after."""
    row(table, values)


def row(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they go into `table`, dicts and lists as JSON. InputError if one does not fit its column."""
    kinds = expected()[table]
    if unknown := sorted(values.keys() - kinds.keys()):
        raise InputError(f"{table} has no column {unknown[0]}: it has {', '.join(kinds)}")
    return {name: _value(f"{table}.{name}", kinds[name], value) for name, value in values.items()}


def rows(table: str, columns: pa.Table) -> pa.Table:
    """Rows of a fixed table in its types. InputError if one does not fit."""
    kinds = expected()[table]
    for place, name in enumerate(columns.column_names):
        if name not in kinds:
            raise InputError(f"{table} has no column {name}: it has {', '.join(kinds)}")
        kind, values = _ARROW[kinds[name]], columns.column(name)
        if kinds[name] == "JSON" and pa.types.is_nested(values.type):
            values = pa.chunked_array([_texts(values.to_pylist())], kind)
        if columns.column(name).type != kind:
            try:
                columns = columns.set_column(place, name, values.cast(kind))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                said = " ".join(str(error).split())[:160]
                raise InputError(
                    f"{table}.{name} holds {kinds[name].lower()}, and there is a value that is none: {said}"
                ) from error
    return columns


def _value(where: str, kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind in _WHOLE:
        return _number(where, kind, value)
    if kind == "JSON":
        return json.dumps(plain(value), default=str)
    if kind == "TIMESTAMP":
        return _time(where, value)
    if kind == "VARCHAR":
        return _text(where, str(value))
    return value


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(plain(value), default=str, separators=(",", ":"))


def _texts(values: list[Any]) -> list[str | None]:
    """JSON of many values, which often say the same: each is written once."""
    known: dict[str, str | None] = {}
    named = [repr(value) for value in values]
    for name, value in zip(named, values):
        if name not in known:
            known[name] = _json(value)
    return [known[name] for name in named]


def _number(where: str, kind: str, value: Any) -> int:
    bits, signed = _WHOLE[kind], not kind.startswith("U")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{value!r} is no whole number, which {where} holds") from error
    if number != value or not low <= number <= high:
        raise InputError(f"{value!r} does not fit {where}, which holds whole numbers from {low} to {high}")
    return number


def _text(where: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{value!r} does not fit {where}: it is not Unicode text") from error
    if "\0" in value:
        raise InputError(f"{value!r} does not fit {where}: it has a NUL in it")
    return value


def _time(where: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{value!r} does not fit {where}: it is no date and time such as 2026-01-31 12:00:00") from error


def plain(value: Any) -> Any:
    """What JSON can say: no NaN or infinity (null), and text that is Unicode."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
