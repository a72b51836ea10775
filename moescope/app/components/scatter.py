"""A map of points: a component of the browser that paints them on one canvas and gives back the rectangle that was dragged.

The rectangle is in the URL. Files of the same picture are made by `moescope.charts.scatter`.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.components import drawing
from moescope.app.wording import clean

GREY = ("other", "none")  # groups that have no colour of their own


def data_of(
    frame: pd.DataFrame, x: str, y: str, group: str, name: str, notes: Sequence[str], title: str, subtitle: str
) -> dict[str, Any]:
    """What the browser needs; groups from the commonest to the rarest, those without a colour last."""
    known = sorted(frame[group].value_counts().index, key=lambda g: g in GREY)
    texts = [[clean(v, 60) if isinstance(v, str) else "" for v in frame[note]] for note in notes]
    return {
        "title": title, "subtitle": subtitle, "x": frame[x].round(4).tolist(), "y": frame[y].round(4).tolist(),
        "groups": [clean(str(g), 30) for g in known], "grey": list(GREY),
        "group": pd.Index(known).get_indexer(frame[group]).tolist(), "names": [clean(v, 40) for v in frame[name]],
        "notes": [list(some) for some in zip(*texts, strict=True)],
    }  # fmt: skip


def brushed(key: str) -> list[float] | None:
    """The rectangle in ?key=: left, right, bottom, top."""
    try:
        values = [float(part) for part in (url_state.get(key) or "").split(",")]
    except ValueError:
        return None
    return values if len(values) == 4 else None


def show(data: dict[str, Any], key: str) -> list[float] | None:
    """Draw it; the rectangle that is in the URL."""

    def dragged() -> None:
        brush = (st.session_state.get(f"map-{key}") or {}).get("brush")
        url_state.put(key, ",".join(map(str, brush)) if brush else None)

    signed = data | {"sign": drawing.sign(data), "brush": brushed(key)}
    drawing.show("scatter", signed, f"map-{key}", on_brush_change=dragged)
    return brushed(key)
