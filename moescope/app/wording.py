"""Words of the dashboard: text from data made safe, as in every picture, and what it calls things."""

from moescope.pictures.wording import clean, count, markup, plain, share, token, visible

__all__ = ["MODES", "clean", "count", "markup", "mode", "plain", "share", "token", "visible"]
MODES = {"route-around": "the next best expert runs", "zero": "nothing runs", "mean": "its mean contribution"}


def mode(name: str) -> str:
    """What runs instead of an expert that is taken away."""
    return MODES.get(name, name)
