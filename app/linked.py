"""State that lives in the URL, so that a view can be sent; run, layer and the like follow from page to page."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

FOLLOW = ("run", "layer", "domain")  # kept when the page changes
FORGET = {"run": ("sequence", "token", "expert"), "sequence": ("token",)}  # what a change of the first makes meaningless
T = TypeVar("T")


def get(key: str) -> str | None:
    """The value of ?key=, or what another page left."""
    if key in st.query_params:
        return st.query_params[key]
    return st.session_state.get("follow", {}).get(key) if key in FOLLOW else None


def number(key: str) -> int | None:
    """The value of ?key= where it is a whole number."""
    value = get(key) or ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None


def put(key: str, value: Any) -> None:
    """Set ?key=, or take it away with None."""
    text = None if value is None else str(value)
    if key in FOLLOW:
        st.session_state.setdefault("follow", {})[key] = text
    if text is None:
        if key in st.query_params:
            del st.query_params[key]
    elif st.query_params.get(key) != text:
        st.query_params[key] = text


def choose(
    label: str, key: str, options: Sequence[T], show: Callable[[T], str] = str, default: int = 0, **more: Any
) -> T | None:
    """A select box whose value is ?key=; the URL wins, and the first (or `default`) option is not written to it."""
    if not options:
        return None
    names = {str(option): option for option in options}
    asked = get(key)
    value = names.get(asked or "", options[min(default, len(options) - 1)])
    box = f"box-{key}"
    if st.session_state.get(box) != value or box not in st.session_state:
        st.session_state[box] = value
    kept(key, value, value == options[min(default, len(options) - 1)])
    return st.selectbox(label, options, format_func=show, key=box, on_change=_changed, args=(key, box), **more)  # type: ignore[no-any-return]


def kept(key: str, value: Any, is_default: bool) -> None:
    """Write a value to the URL unless it is the default."""
    put(key, None if is_default else value)
    if key in FOLLOW:
        st.session_state.setdefault("follow", {})[key] = str(value)


def typed(label: str, key: str, **more: Any) -> str:
    """A text field whose value is ?key=."""
    box = f"box-{key}"
    st.session_state[box] = get(key) or ""
    return st.text_input(label, key=box, on_change=_changed, args=(key, box), **more) or ""


def _changed(key: str, box: str) -> None:
    value = st.session_state[box]
    put(key, value if value not in ("", None) else None)
    for other in FORGET.get(key, ()):
        put(other, None)


def go(page: str, **state: Any) -> None:
    """Open another page with this state in its URL."""
    for key in FOLLOW:
        if key in state:
            st.session_state.setdefault("follow", {})[key] = str(state[key])
    wanted = st.session_state.get("follow", {}) | {key: str(value) for key, value in state.items() if value is not None}
    st.switch_page(f"views/{page}.py", query_params={key: value for key, value in wanted.items() if value})
