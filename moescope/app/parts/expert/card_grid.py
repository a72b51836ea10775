"""Experts as cards: all of a layer beside each other, sorted and searched; each opens its expert."""

from typing import Any
from urllib.parse import urlencode

import streamlit as st

from moescope.app import url_state
from moescope.app.parts import figures, note_field, panels, pickers
from moescope.app.queries import store_access
from moescope.app.queries.expert import expert_cards
from moescope.app.queries.expert.expert_cards import Card
from moescope.app.wording import some
from moescope.pictures import expert_cards as pictures
from moescope.show.expert_cards import table, told
from moescope.store import notes

SORTS = {"expert": "number", "load": "load", "lift": "lift of the best label", "effect": "effect of losing it"}
Row = dict[str, Any]


@panels.part
def show(run: Row, layer: pickers.Layer) -> None:
    """The grid, with what it is searched and sorted by."""
    panels.section(
        f"All experts of {layer.label}",
        "Best label: of those that surely come here more than by chance (95 % over documents), the surest. "
        "The bar is the load (where some was dropped, what was asked for), full at twice an even share. "
        "Choose a card to open its expert.",
    )
    one, two = st.columns([2, 1], vertical_alignment="bottom")
    with one:
        text = url_state.typed("Search tokens and labels", "seek", placeholder="the, code, NOUN …", icon=":material/search:")
    with two:
        sort = url_state.choose("Sorted by", "sort", list(SORTS), SORTS.__getitem__) or "expert"
    with st.spinner("Counting tokens and labels of every expert …", show_time=True):
        cards = expert_cards.of(run, layer)
    found = ordered([card for card in cards if not text or card.matches(text)], sort)
    if not found:
        panels.empty(f"No expert of {layer.label} has “{text}”", "Search for a piece of a token, or of a label.")
        return
    own = {number: words for number, words in noted(layer, cards).items() if words}
    places = ["experts?" + urlencode({"run": run["run"], "layer": layer.label, "expert": card.expert}) for card in found]
    asked = any(card.dropped for card in cards)
    st.html(pictures.drawn([told(card, layer.even, asked) for card in found], places, own))
    st.caption(f"{len(found)} of {some(len(cards), 'expert')}.")
    figures.files(table(found), "-- counted in several questions: tokens, labels by kind, load, effects", name="expert-cards")


def ordered(cards: list[Card], sort: str) -> list[Card]:
    """The largest first; those without a figure last."""
    values = {
        "load": lambda card: card.load, "lift": lambda card: card.best and card.best.lift,
        "effect": lambda card: card.effect and card.effect[0],
    }  # fmt: skip
    if sort not in values:
        return sorted(cards, key=lambda card: card.expert)
    return sorted(cards, key=lambda card: (values[sort](card) is None, -(values[sort](card) or 0.0), card.expert))


def noted(layer: pickers.Layer, cards: list[Card]) -> dict[int, str]:
    """The user's notes on these experts."""
    if not (known := note_field.known()):
        return {}
    about, _ = notes.expert(store_access.reader(), layer.router, 0)
    return {card.expert: notes.text(known, about | {"expert": card.expert}) for card in cards}
