"""A map of points as the browser draws it (browser/scatter.js).

Files of the same picture are made by `moescope.charts.scatter`.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .wording import clean

GREY = ("other", "none")  # groups that have no colour of their own


def data_of(
    frame: pd.DataFrame, x: str, y: str, group: str, name: str, notes: Sequence[str], title: str, subtitle: str, click: str = ""
) -> dict[str, Any]:
    """What the browser needs; groups from the commonest to the rarest, those without a colour last.

    `click` is what a click on a point opens, in words; "" where it opens nothing.
    """
    known = sorted(frame[group].value_counts().index, key=lambda g: g in GREY)
    texts = [[clean(v, 60) if isinstance(v, str) else "" for v in frame[note]] for note in notes]
    return {
        "title": title, "subtitle": subtitle, "click": click, "x": frame[x].round(4).tolist(), "y": frame[y].round(4).tolist(),
        "groups": [clean(str(g), 30) for g in known], "grey": list(GREY),
        "group": pd.Index(known).get_indexer(frame[group]).tolist(), "names": [clean(v, 40) for v in frame[name]],
        "notes": [list(some) for some in zip(*texts, strict=True)],
    }  # fmt: skip
