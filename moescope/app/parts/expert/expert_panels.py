"""Panels of an expert's page: its tokens in context, and its company."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.parts import figures, panels, pickers
from moescope.app.parts.expert import patch_panels
from moescope.app.queries import sampling, store_access
from moescope.app.queries.expert import company as facts
from moescope.app.queries.expert import experts, patches
from moescope.app.wording import figure, markup, some, token, visible

PLACES = {"most": "Highest weight", "random": "Random sample"}
Row = dict[str, Any]


@panels.part
def tokens_of(run: Row, layer: pickers.Layer, expert: int, overall: float) -> None:
    """Its characteristic tokens, and places where they stand; of images a map of places, and a gallery."""
    spots, sql, params = patches.positions(run, layer, expert)
    if len(spots):
        patch_panels.show(run, layer, expert, spots, sql, params)
        return
    frame, sql, params = experts.top_tokens(run, layer, expert, overall)
    left, right = st.columns([4, 5], gap="medium")
    with left:
        panels.section(
            "Its tokens", "By lift: how many times likelier than any token to come here; 1 is chance. The 40 surest."
        )
        named = frame.dropna(subset=["text"])
        if named.empty:
            panels.empty("Patches have no words", "See its classes below, or the patches on the Tokens page.")
            picked = ""
        else:
            picked = _words(run, named, sql, params)
            if experts.exact(layer):
                st.caption(f":material/info: Exact: counted over all {some(run['tokens'], 'token')} of the run.")
            else:
                sampling.sample_note(experts.part_of(run, layer)[1])
    with right:
        words = (
            f"With “{token(store_access.spelling(run['run'])(picked)).strip()}”."
            if picked
            else "Places where it is the first choice. Choose a token to see its own; click a place for its route."
        )
        panels.section("In context", words)
        by = url_state.tabs("Which places", "places", PLACES)
        contexts(run, layer, expert, picked, by)


def _words(run: Row, named: pd.DataFrame, sql: str, params: list[Any]) -> str:
    """A table of its tokens; gives the one that is chosen."""
    spelled = store_access.spelling(run["run"])
    shown = named.assign(token=[visible(spelled(text)) for text in named["text"]])[
        ["token", "tokens", "rate", "lift", "at_least"]
    ]
    picked = url_state.get("word") or ""
    at = named["text"].tolist().index(picked) if picked in set(named["text"]) else None
    number = st.column_config.NumberColumn
    columns = {
        "token": st.column_config.TextColumn(width=96),
        "tokens": number("here", width=52, help="How often it came to this expert."),
        "rate": number("of all", format="percent", width=64, help="Of all its occurrences."),
        "lift": number(format="%.2f ×", width=60),
        "at_least": number("≥ (95 %)", format="%.2f ×", width=72, help="Lower 95 % bound."),
    }

    def put(row: int | None) -> None:
        url_state.put("word", None if row is None else named["text"].iloc[row])

    url_state.row(shown, "top", put, at, height=420, column_config=columns)
    figures.files(shown, sql, params, name="expert-tokens")
    return picked


def contexts(run: Row, layer: pickers.Layer, expert: int, picked: str, by: str) -> None:
    """Places with the tokens around them; each opens the token's route."""
    frame, sql, params = experts.contexts(run, layer, expert, picked, by)
    lines, spelled = [], store_access.spelling(run["run"])
    for (number, sequence, document), near in frame.groupby(["token", "sequence", "document"], dropna=False, sort=False):
        left, right = (
            token(spelled.joined(near[side]["text"].fillna("▦")), 4000) for side in (near["distance"] < 0, near["distance"] > 0)
        )
        here = spelled(near[near["distance"] == 0]["text"].iloc[0])
        query = f"run={run['run']}&amp;sequence={sequence}&amp;token={number}&amp;layer={markup(layer.label).replace(' ', '+')}"
        lines.append(
            f'<p dir="auto">{markup(left[-140:])}<a href="tokens?{query}" target="_self"><mark>'
            f"{markup(visible(here) if here else 'patch')}</mark></a>{markup(right[:140])}"
            f"<small><bdi>{markup(document)} · {figure(near['weight'].iloc[0], '.2f')}</bdi></small></p>"
        )
    if not lines:
        panels.empty("No place where it is the first choice", "It may run only as a second choice.")
        return
    st.html(f'<div class="ms-context">{"".join(lines)}</div>')
    figures.files(frame, sql, params, name="contexts")


@panels.part
def company(run: Row, layer: pickers.Layer, expert: int) -> None:
    """Experts that run with it, before it, after it, and on the same tokens."""
    panels.section("Its company", "Experts that run with it, see the same tokens, come before it and after it.")
    counted = pickers.choose_counted(run["run"])
    places = [column for _ in range(2) for column in st.columns(2)]
    k, many, key = layer.top_k or 1, layer.experts, (run, layer, expert, counted)
    verb = "was asked for" if counted == "asked" else "ran"
    with places[0]:
        said = f"of the tokens for which this one {verb}, the share for which that one {verb} too"
        chance = (k - 1) / max(many - 1, 1)
        _ranked(facts.together(*key), "share", "Runs together with", said, chance, "Top-1 routing has none.", layer)
    with places[1]:
        said = "cosine between how often each token came to the one and to the other"
        _ranked(facts.nearest(*key), "cosine", "Sees the same tokens as", said, None, "It has no company.", layer)
    with places[2]:
        said = "of the tokens that had that one first, the share that had this one first here"
        found, first = facts.before(*key), facts.first_share(*key)
        _ranked(found, "share", "One layer before", said, first, "No layer before was traced.", at(run, found[0]))
    with places[3]:
        said = "of the tokens that had this one first, the share that had that one first there"
        found = facts.after(*key)
        there = at(run, found[0])
        even = there.even if there else None
        _ranked(found, "share", "One layer after", said, even, "No layer after was traced.", there)
    if counted == "asked":
        sampling.sample_note(experts.part_of(run, layer)[1])


def at(run: Row, frame: pd.DataFrame) -> pickers.Layer | None:
    """The layer that the experts of a frame are of."""
    return next((x for x in pickers.layers(run["run"]) if len(frame) and x.router == frame["router"].iloc[0]), None)


def _ranked(
    found: facts.Asked, value: str, title: str, said: str, chance: float | None, none: str, of: pickers.Layer | None
) -> None:
    frame, sql, params = found
    if frame.empty:
        panels.empty(title, none)
        return
    look: dict[str, Any] = {"chance": chance, "title": title, "format": ".0%" if value == "share" else ".2f", "subtitle": said}
    if of is not None:
        frame = frame.assign(router=of.router, expert=frame["other"])
        frame = frame.assign(other=[f"{of.label} · expert {e}" for e in frame["expert"]])
    figures.ranked(frame, "other", value, sql, params, name=title.replace(" ", "-"), **look)
