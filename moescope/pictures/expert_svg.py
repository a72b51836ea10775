"""Cards of experts as SVG: the same as expert_cards.py draws."""

from collections.abc import Sequence
from typing import Any

from ..charts import CATEGORY
from .bars import said
from .svg import Drawing, cut, width

ACROSS, GAP, HIGH = 4, 10.0, 104.0


def drawn(cards: Sequence[dict[str, Any]], title: str, words: Sequence[str], dark: bool = False) -> str:
    """Four cards (`moescope.show.expert_cards.told`) in a row; a line stands at an even load."""
    drawing = Drawing(900, dark)
    drawing.heading(title, words)
    wide = (drawing.wide - 28 - GAP * (ACROSS - 1)) / ACROSS
    for number, card in enumerate(cards):
        x = 14 + (number % ACROSS) * (wide + GAP)
        _card(drawing, card, x, wide)
        if number % ACROSS == ACROSS - 1 or number == len(cards) - 1:
            drawing.y += HIGH + GAP
    return drawing.drawn()


def _card(drawing: Drawing, card: dict[str, Any], x: float, wide: float) -> None:
    top, inner = drawing.y, wide - 20
    drawing.rect(x, top, wide, HIGH, drawing.colours["ground"], 1.0, f'rx="8" stroke="{drawing.colours["line"]}"')
    drawing.text(x + 10, top + 19, f"expert {card['expert']}", 13, 'font-weight="600"')
    drawing.text(x + 10, top + 34, cut(card["says"], inner, 10), 10, soft=True)
    drawing.rect(x + 10, top + 41, inner, 7, drawing.colours["line"], 1.0, 'rx="3.5"')
    drawing.rect(x + 10, top + 41, inner * min((card["share"] or 0) / card["even"] / 2, 1), 7, CATEGORY[0], 1.0, 'rx="3.5"')
    drawing.rect(x + 10 + inner / 2, top + 39, 1.5, 11, drawing.colours["faint"])
    _tokens(drawing, card["words"], x + 10, top + 65, inner)
    if card["label"]:
        span = f"[{said(card['low'], '.1f')}, {said(card['high'], '.1f')}]"
        words = f"{card['label']}: lift {said(card['lift'], '.1f')} × {span}"
        drawing.text(x + 10, top + HIGH - 8, cut(words, inner, 10), 10, soft=True)


def _tokens(drawing: Drawing, tokens: Sequence[str], left: float, y: float, room: float) -> None:
    x = left
    for text in tokens:
        short = cut(text, room / 2, 11)
        wide = width(short, 11) + 8
        if x + wide > left + room:
            break
        drawing.rect(x, y - 11, wide, 15, drawing.colours["line"], 0.6, 'rx="3"')
        drawing.text(x + 4, y, short, 11)
        x += wide + 4
