"""Flow from layer to layer on a page: what is drawn is `moescope.pictures.flow_ribbons`; a click gives back its expert."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from moescope.app.components import drawing
from moescope.pictures.flow_ribbons import data_of

__all__ = ["data_of", "show"]


def show(data: dict[str, Any], key: str, follow: Callable[[tuple[int, int] | None], None]) -> None:
    """Draw it; `follow` gets (layer, expert) when one is clicked, or None when it is let go."""

    def clicked() -> None:
        node = (st.session_state.get(key) or {}).get("node")
        follow(tuple(node) if node else None)

    drawing.show(
        "flow_ribbons", data | {"sign": drawing.sign({**data, "focus": None})}, key, root="flow", on_node_change=clicked
    )
