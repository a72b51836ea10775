"""State that lives in the URL, so that a view can be sent; run, layer and the like follow from page to page."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from moescope.words import percent

FOLLOW = ("run", "layer", "domain")  # kept when the page changes
PAGES = ("page", "page1", "page2")
FORGET = {  # what a change of the first makes meaningless
    "run": ("sequence", "token", "expert", "word", "spot", "in", "follow", "brush", "step", *PAGES),
    "layer": ("word", "follow", "spot"),
    "stack": ("brush",),
    "map": ("brush",),
    "seed": ("brush",),
    "expert": ("word", "spot"),
    "marked": ("only",),
    "sequence": ("token", "step", *PAGES),
}
T = TypeVar("T")
attended = True  # False while pages are drawn for nobody, to fill the caches: what takes long is then left out


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


def begin() -> None:
    """Before a page is drawn: what it will show is not known yet."""
    st.session_state["chosen"] = {}


def drawn() -> dict[str, str]:
    """What the pickers of this page show, by their keys."""
    return {key: _text(value) for key, value in st.session_state.get("chosen", {}).items()}


def chosen() -> dict[str, str]:
    """All state of what is shown: every value that was chosen or is at its default, and what else is in the URL."""
    return {key: value for key, value in (drawn() | dict(st.query_params)).items() if value != ""}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def choose(
    label: str, key: str, options: Sequence[T], show: Callable[[T], str] = str, default: int = 0, **more: Any
) -> T | None:
    """A select box whose value is ?key=; the URL wins, and the first (or `default`) option is not written to it."""
    if not options:
        return None
    names = {str(option): option for option in options}
    asked = get(key)
    value = names.get(asked or "", options[min(default, len(options) - 1)])
    box = _box(key, value)
    kept(key, value, value == options[min(default, len(options) - 1)])
    return st.selectbox(label, options, format_func=show, key=box, on_change=_changed, args=(key, box), **more)  # type: ignore[no-any-return]


def kept(key: str, value: Any, is_default: bool) -> None:
    """Write a value to the URL unless it is the default."""
    put(key, None if is_default else value)
    if key in FOLLOW:
        st.session_state.setdefault("follow", {})[key] = str(value)


def typed(label: str, key: str, **more: Any) -> str:
    """A text field whose value is ?key=."""
    box = _box(key, get(key) or "")
    return st.text_input(label, key=box, on_change=_changed, args=(key, box), **more) or ""


def tabs(label: str, key: str, options: dict[str, str]) -> str:
    """Sections of which one is drawn, the one in ?key=; the first is not written to the URL."""
    names = list(options)
    box = _box(key, get(key) if get(key) in options else names[0])
    st.segmented_control(
        label, names, format_func=options.__getitem__, key=box, required=True, label_visibility="collapsed",
        on_change=_changed, args=(key, box, names[0]),
    )  # fmt: skip
    return str(st.session_state[box])


def toggle(label: str, key: str, **more: Any) -> bool:
    """A switch whose value is ?key=; off is not written to the URL."""
    box = _box(key, get(key) == "1")
    return bool(st.toggle(label, key=box, on_change=_changed, args=(key, box, False), **more))


def several(label: str, key: str, options: Sequence[T], default: Sequence[T], **more: Any) -> list[T]:
    """A multi-select whose values are ?key=a,b; the default is not written to the URL."""
    names = {str(option): option for option in options}
    asked = get(key)
    chosen = list(default) if asked is None else [names[name] for name in asked.split(",") if name in names]
    box = _box(key, chosen)
    return list(st.multiselect(label, options, key=box, on_change=_changed, args=(key, box, list(default)), **more))


def asked(label: str, key: str, heavy: bool, **more: Any) -> bool:
    """True once the button was pressed, or where ?key=1 says that it was; what is `heavy` is not run because a link says so."""
    if get(key) == "1" and (not heavy or st.session_state.get(f"pressed-{key}")):
        return True
    if not st.button(label, key=f"go-{key}", icon=":material/play_arrow:", **more):
        return False
    put(key, 1)
    st.session_state[f"pressed-{key}"] = True
    return True


def whole(label: str, key: str, low: int, high: int, default: int, **more: Any) -> int:
    """A whole number from `low` to `high` whose value is ?key=."""
    asked = number(key)
    box = _box(key, min(max(default if asked is None else asked, low), high))
    return int(st.number_input(label, low, high, key=box, on_change=_changed, args=(key, box, default), **more))


def _box(key: str, value: Any) -> str:
    """The widget's own key, holding what the URL says."""
    box = f"box-{key}"
    st.session_state.setdefault("chosen", {})[key] = value
    if box not in st.session_state or st.session_state[box] != value:
        st.session_state[box] = value
    st.session_state.setdefault("drawn", {})[box] = value
    return box


def _changed(key: str, box: str, default: Any = None) -> None:
    value, drawn = st.session_state[box], st.session_state.get("drawn", {})
    if box in drawn and drawn[box] == value:
        return  # a page that was left a moment ago still says what its widgets show
    if isinstance(value, bool):
        value = int(value)
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    put(key, None if value == default or (text in ("", None) and default is None) else text)
    others = [other for other in st.query_params if key == "run" and other.startswith(("ask-", "what-if"))]
    for other in [*FORGET.get(key, ()), *others]:
        put(other, None)


def opened(label: str, key: str, icon: str) -> Any:
    """A part to open, as a container with `.open`; that it is open is in the URL, and what is in it is made only then."""
    return st.expander(label, key=key, icon=icon, bind="query-params")


def row(
    frame: pd.DataFrame, key: str, picked: Callable[[int | None], None], chosen: int | None = None, shares: Sequence[str] = (),
    **more: Any,
) -> None:  # fmt: skip
    """A table; `picked` gets the row that is chosen, or None when it is let go, before anything is drawn again.

    `chosen` is the row that is shown as chosen; columns of `shares` are said as 12.3 %. The key is the same whatever it
    shows: the browser then fills the table that it has, instead of making another. What `picked` changes is drawn with the
    choice: a table that is sent the choice of before would choose it again.
    """
    box = f"rows-{key}"
    st.session_state[box] = {"selection": {"rows": [] if chosen is None else [chosen], "columns": [], "cells": []}}
    shown = _said(frame, shares) if shares else frame
    st.dataframe(
        shown, hide_index=True, placeholder="–", on_select=partial(_chosen, box, len(frame), picked),
        selection_mode="single-row", key=box, **more,
    )  # fmt: skip


def _said(frame: pd.DataFrame, shares: Sequence[str]) -> Any:
    """The table with its shares as texts say them; where some columns have words of their own, the others need them too."""
    numbers = {c: percent if c in shares else "{:,.6g}".format for c in frame if pd.api.types.is_float_dtype(frame[c])}
    return frame.style.format(numbers, na_rep="–")


def _chosen(box: str, count: int, picked: Callable[[int | None], None]) -> None:
    rows = [r for r in (st.session_state.get(box) or {}).get("selection", {}).get("rows") or [] if r < count]
    picked(int(rows[0]) if rows else None)


def open_page(page: str, **state: Any) -> None:
    """Open another page with this state in its URL."""
    for key in FOLLOW:
        if key in state:
            st.session_state.setdefault("follow", {})[key] = str(state[key])
    wanted = st.session_state.get("follow", {}) | {key: str(value) for key, value in state.items() if value is not None}
    st.switch_page(f"views/{page}.py", query_params={key: value for key, value in wanted.items() if value})


def request_page(page: str, **state: Any) -> None:
    """`open_page`, for callbacks: the next thing that is drawn opens the other page instead."""
    st.session_state["leaving"] = page, state


def to_token(run: int, frame: pd.DataFrame, row: int | None) -> None:
    """`request_page` for the route of the token in this row of `frame` (sequence, token)."""
    if row is not None:
        request_page("tokens", run=run, sequence=int(frame["sequence"].iloc[row]), token=int(frame["token"].iloc[row]))


def open_requested_page() -> None:
    """Open the page that a callback asked for, if one did."""
    if leaving := st.session_state.pop("leaving", None):
        open_page(leaving[0], **leaving[1])
