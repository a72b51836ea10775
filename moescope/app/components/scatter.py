"""A map of points on a page: what is drawn is `moescope.pictures.scatter`; the rectangle that is dragged is in the URL."""

from collections.abc import Callable
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


def show(data: dict[str, Any], key: str, clicked: Callable[[int], None]) -> list[float] | None:
    """Draw it; the rectangle that is in the URL. `clicked` gets the row of a point that was clicked, before any drawing."""

    def picked() -> None:
        point = (st.session_state.get(f"map-{key}") or {}).get("point")
        if isinstance(point, int) and 0 <= point < len(data["x"]):
            clicked(point)

    def dragged() -> None:
        brush = (st.session_state.get(f"map-{key}") or {}).get("brush")
        url_state.put(key, ",".join(map(str, brush)) if brush else None)

    signed = data | {"sign": drawing.sign(data), "brush": brushed(key)}
    drawing.show("scatter", signed, f"map-{key}", on_brush_change=dragged, on_point_change=picked)
    return brushed(key)
