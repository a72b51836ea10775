"""Cells of a row: what is missing, what is a label, what is a text."""

from typing import Any

import numpy as np

from ....errors import InputError


def plain(value: Any) -> Any:
    """A cell as Python has it; None for what is missing (None, NaN, NA, NaT)."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return None
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def label(value: Any, column: str, where: str) -> str:
    """A cell that is not missing as a label; InputError for one that is a list, an object or bytes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict | bytes | np.ndarray):
        raise InputError(f"{where}: column {column!r} holds {type(value).__name__} values, which cannot be labels.")
    return checked(str(value), column, where)


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
