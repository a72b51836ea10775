"""Which sequence is looked at: by label, by search, from a list; which piece of it, and which of its forward passes."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.parts import panels, pickers
from moescope.app.queries import steps, store_access, token_routes
from moescope.app.wording import clean

Row = dict[str, Any]


def name_of(row: Row) -> str:
    """A sequence in the list."""
    name = str(row["document"] or f"sequence {row['sequence']}") + (f" ({row['part']})" if row["part"] else "")
    labels = [str(row[k]) for k in ("domain", "class") if row[k]]
    return clean(" · ".join([name, *labels, row["text"] or f"{row['tokens']} tokens"]), 110)


def home(run: Row, token: int) -> int | None:
    """The sequence of a token of this run."""
    at = store_access.rows("select sequence from tokens where token = ? and run = ?", token, run["run"])
    return at[0]["sequence"] if at else None


def shown_token(run: Row, sequences: list[int]) -> int | None:
    """The chosen token where it stands in one of the sequences that are shown; one of another text is chosen no more."""
    token = url_state.number("token")
    if token is not None and home(run, token) not in sequences:
        url_state.put("token", None)
        return None
    return token


def find(run: Row, stack: str) -> Row | None:
    """Which sequence: by label, by search, from a list."""
    one, two, three = st.columns([1, 1.2, 3], vertical_alignment="bottom")
    with one:
        label = pickers.choose_label(run["run"], "With the label", tokens=True)
    with two:
        search = url_state.typed("Search", "q", placeholder="a word, a token, a document", icon=":material/search:")
    found = {row["sequence"]: row for row in token_routes.sequences(run["run"], stack, label, search)}
    with three:
        if url_state.get("sequence") is None and (token := url_state.number("token")) is not None:
            url_state.put("sequence", home(run, token))
        picked = url_state.choose(
            f"Sequence ({len(found)}{'+' if len(found) == 300 else ''})", "sequence", list(found), lambda s: name_of(found[s])
        )
    if picked is None:
        panels.empty("No sequence like that", "Choose everything as label, or search for a shorter piece of text.")
        return None
    return found[picked]


def page_of(sequence: Row, place: int) -> int:
    """Which piece of a long sequence; it starts where the chosen token is."""
    count = store_access.rows("select count(*) as n from tokens where sequence = ?", sequence["sequence"])[0]["n"]
    pages = -(-count // token_routes.PAGE)
    if pages < 2:
        return 0
    at = store_access.rows(
        "select position from tokens where token = ? and sequence = ?", url_state.number("token") or -1, sequence["sequence"]
    )
    begin = min(at[0]["position"] // token_routes.PAGE, pages - 1) + 1 if at else 1
    return url_state.whole(f"Page of {pages}", f"page{place or ''}", 1, pages, begin) - 1


def step(sequence: Row, router: int) -> int | None:
    """Which forward pass, where the same tokens went through several: a denoising step by its timestep; the last at first."""
    known = steps.of(sequence["sequence"], router)
    if not known:
        return None
    with st.columns([1, 2])[0]:
        return url_state.choose(f"Step ({len(known)})", "step", list(known), lambda f: clean(known[f], 80), len(known) - 1)
