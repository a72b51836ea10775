"""Words of the dashboard: text from data made safe, as in every picture, and what it calls things."""

from moescope.pictures.wording import clean, count, figure, markup, plain, share, some, token, visible

__all__ = ["MODES", "clean", "count", "figure", "markup", "mode", "plain", "share", "some", "token", "visible"]
MODES = {"route-around": "the next best expert runs", "zero": "nothing runs", "mean": "its mean contribution"}


def mode(name: str) -> str:
    """What runs instead of an expert that is taken away."""
    return MODES.get(name, name)
