"""Heat maps on a page: what is drawn is `moescope.pictures.heat_map`; a click gives back its cell."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from moescope.app.components import drawing
from moescope.pictures.heat_map import data_of

__all__ = ["data_of", "show"]


def show(data: dict[str, Any], key: str, clicked: Callable[[Any, Any], None] | None = None) -> None:
    """Draw it; `clicked` gets the column and the row of a cell that was clicked, before anything is drawn again."""

    def cell() -> None:
        found = (st.session_state.get(key) or {}).get("cell")
        if found and clicked is not None:
            clicked(found["x"], found["y"])

    drawing.show("heat_map", data | {"sign": drawing.sign(data)}, key, root="heat", on_cell_change=cell)
