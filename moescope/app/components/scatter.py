"""A map of points on a page: what is drawn is `moescope.pictures.scatter`; the rectangle that is dragged is in the URL."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.components import drawing
from moescope.pictures.scatter import GREY, data_of

__all__ = ["GREY", "brushed", "data_of", "show"]


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
