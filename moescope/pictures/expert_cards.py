"""Experts as cards, in HTML: the same on the dashboard's page and in pictures that stand alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from .wording import count, figure, markup


def drawn(cards: Sequence[Mapping[str, Any]], links: Sequence[str] = (), notes: Mapping[int, str] | None = None) -> str:
    """A grid of cards (`moescope.show.expert_cards.told`), each a link where `links` has one; `notes`: a user's own words."""
    made = [_card(card, link, (notes or {}).get(card["expert"], "")) for card, link in zip(cards, links or [""] * len(cards))]
    return f'<div class="ms-experts">{"".join(made)}</div>'


def _card(card: Mapping[str, Any], link: str, note: str) -> str:
    tag, opened = ("a", f' href="{markup(link)}" target="_self"') if link else ("div", "")
    keys = {"expert": card["expert"], "share": card["share"], "lift": card["lift"], "effect": card["effect"]}
    data = "".join(f' data-{name}="{value:.9g}"' for name, value in keys.items() if value is not None)
    words = "".join(f'<i dir="auto">{markup(word)}</i>' for word in card["words"])
    lost = f", {count(card['dropped'])} × dropped" if card["dropped"] else ""
    effect = "" if card["effect"] is None else f"<span>without it {card['effect']:+.4f} nats</span>"
    dead = "" if card["ran"] else " dead"
    return (
        f'<{tag} class="ms-expert{dead}"{opened}{data} data-search="{markup(card["search"], 4000)}">'
        f"<strong>expert {card['expert']}</strong>{_bar(card, lost)}<small>{markup(card['says'])}</small>"
        f'<div class="words">{words}</div><div class="label">{_label(card)}</div>{effect}<p>{markup(card["summary"])}</p>'
        f"{f'<q>{markup(note, 200)}</q>' if note else ''}</{tag}>"
    )


def _bar(card: Mapping[str, Any], lost: str) -> str:
    """Full at twice an even share, as everywhere."""
    width = min(50 * (card["share"] or 0) / card["even"], 100)
    return f'<em title="ran {count(card["ran"])} ×{lost}; even is at half"><u style="width:{width:.1f}%"></u></em>'


def _label(card: Mapping[str, Any]) -> str:
    if card["label"] is None:
        return ""
    span = f"[{figure(card['low'], '.1f')}, {figure(card['high'], '.1f')}]"
    return f"<b>{markup(card['label'])}</b> {figure(card['lift'], '.1f')} × {span}"
