"""Experts as cards: all of a layer beside each other, sorted and searched; each opens its expert."""

from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.parts import note_field, panels, pickers
from moescope.app.queries import expert_cards, store_access
from moescope.app.queries.expert_cards import Card
from moescope.app.wording import count, figure, markup, share, some, visible
from moescope.store import notes

SORTS = {"expert": "number", "load": "load", "lift": "lift of the best label", "effect": "effect of losing it"}
Row = dict[str, Any]


@panels.part
def show(run: Row, layer: pickers.Layer) -> None:
    """The grid, with what it is searched and sorted by."""
    panels.section(
        f"All experts of {layer.label}",
        "Best label: of those that surely come here more than by chance (95 % over documents), the surest. "
        "The bar is the load, full "
        "at twice an even share. Choose a card to open its expert.",
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
    st.html(f'<div class="ms-experts">{"".join(_card(run, layer, card, own.get(card.expert, "")) for card in found)}</div>')
    st.caption(f"{len(found)} of {some(len(cards), 'expert')}.")
    panels.files(table(found), "-- counted in several questions: tokens, labels by kind, load, effects", name="expert-cards")


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


def table(cards: list[Card]) -> pd.DataFrame:
    """What the cards say, as rows."""
    return pd.DataFrame([
        {
            "expert": card.expert, "load": card.load, "assignments": card.assignments, "dropped": card.dropped,
            "tokens": " ".join(visible(word) for word in card.words[: expert_cards.WORDS]),
            "label": card.best and f"{card.best.kind}: {card.best.label}", "share": card.best and card.best.share,
            "lift": card.best and card.best.lift, "low": card.best and card.best.low, "high": card.best and card.best.high,
            "effect": card.effect and card.effect[0], "summary": card.summary,
        }
        for card in cards
    ])  # fmt: skip


def _card(run: Row, layer: pickers.Layer, card: Card, note: str) -> str:
    place = urlencode({"run": run["run"], "layer": layer.label, "expert": card.expert})
    words = "".join(f"<i>{markup(visible(word, 14))}</i>" for word in card.words[: expert_cards.WORDS])
    label = ""
    if card.best:
        label = (
            f"<b>{markup(card.best.kind)}: {markup(card.best.label, 30)}</b> {figure(card.best.lift, '.1f')} × "
            f"[{figure(card.best.low, '.1f')}, {figure(card.best.high, '.1f')}]"
        )
    effect = "" if card.effect is None else f"<span>without it {card.effect[0]:+.4f} nats</span>"
    width = min(50 * (card.load or 0) / layer.even, 100)
    tone = " dead" if not card.assignments else ""
    return (
        f'<a class="ms-expert{tone}" href="experts?{markup(place)}" target="_self"><strong>expert {card.expert}</strong>'
        f'<em title="ran {count(card.assignments)} ×"><u style="width:{width:.1f}%"></u></em>'
        f"<small>{share(card.load)} of the load</small>"
        f'<div class="words">{words}</div><div class="label">{label}</div>{effect}<p>{markup(card.summary)}</p>'
        f"{f'<q>{markup(note, 200)}</q>' if note else ''}</a>"
    )
