"""Words of the dashboard: text from data made safe, as in every picture, and what it calls things."""

from typing import Any

import pandas as pd

from moescope.pictures.wording import clean, count, figure, markup, plain, share, some, token, visible

__all__ = ["MODES", "clean", "count", "figure", "markup", "missing", "mode", "plain", "share", "some", "token", "visible"]
MODES = {"route-around": "the next best expert runs", "zero": "nothing runs", "mean": "its mean contribution"}


def mode(name: str) -> str:
    """What runs instead of an expert that is taken away."""
    return MODES.get(name, name)


def missing(value: Any) -> bool:
    """Whether a cell of a frame holds nothing: None, NaN, or what pandas has for them. Lists and texts hold something."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))
