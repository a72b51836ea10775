"""A map of points: a component of the browser that paints them on one canvas and gives back the rectangle that was dragged.

The rectangle is in the URL. Files of the same picture are made by `moescope.charts.scatter`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import linked
import pandas as pd
import streamlit as st
from wording import clean

HERE = Path(__file__).parent
GREY = ("other", "none")  # groups that have no colour of their own


@st.cache_resource(show_spinner=False)
def sources() -> tuple[str, str]:
    """The component's script and style."""
    return HERE.joinpath("scatter_view.js").read_text(), HERE.joinpath("heat_view.css").read_text()


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
        values = [float(part) for part in (linked.get(key) or "").split(",")]
    except ValueError:
        return None
    return values if len(values) == 4 else None


def show(data: dict[str, Any], key: str) -> list[float] | None:
    """Draw it; the rectangle that is in the URL."""
    script, css = sources()
    sign = hashlib.blake2b(json.dumps(data).encode(), digest_size=9).hexdigest()

    def dragged() -> None:
        brush = (st.session_state.get(f"map-{key}") or {}).get("brush")
        linked.put(key, ",".join(map(str, brush)) if brush else None)

    component = st.components.v2.component("moescope_scatter", html='<div class="scatter"></div>', js=script, css=css)
    component(data=data | {"sign": sign, "brush": brushed(key)}, key=f"map-{key}", on_brush_change=dragged)
    return brushed(key)
