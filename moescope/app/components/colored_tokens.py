"""The coloured tokens on a page: what is drawn is `moescope.pictures.colored_tokens`; a click gives back its token."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.components import drawing
from moescope.pictures.colored_tokens import colours, data_of, only, paint, paint_depth, paint_labels

__all__ = ["colours", "data_of", "forget", "only", "paint", "paint_depth", "paint_labels", "show"]


def show(data: dict[str, Any], key: str) -> None:
    """Draw the tokens; a click goes to ?token=.

    What is selected is sent only with other changes: after a click the message is the last one, and the browser keeps its view.
    """
    selected = data.pop("selected")
    sign = drawing.sign(data)
    last = st.session_state.get(f"drawn-{key}", ("", None))
    if last[0] != sign:
        last = st.session_state[f"drawn-{key}"] = sign, selected
    data |= {"sign": f"{sign}-{last[1]}", "selected": last[1]}
    drawing.show("colored_tokens", data, key, style="colored_tokens", root="view", on_token_change=lambda: _clicked(key))


def forget(*keys: str) -> None:
    """Send what is selected with the next drawing: the browser may have no view to keep."""
    for key in keys:
        st.session_state.pop(f"drawn-{key}", None)


def _clicked(key: str) -> None:
    token = (st.session_state.get(key) or {}).get("token")
    if token is not None:
        url_state.put("token", int(token))
