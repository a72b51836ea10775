"""Cards of experts as SVG: the same as browser/expert_cards.js draws."""

from collections.abc import Sequence
from typing import Any

from ..charts import CATEGORY
from .bars import said
from .svg import Sheet, cut, width

ACROSS, GAP, HIGH = 4, 10.0, 104.0


def drawn(cards: Sequence[dict[str, Any]], even: float, title: str, words: Sequence[str], dark: bool = False) -> str:
    """Four cards in a row; `even` is the share of an even load, at which a line stands."""
    sheet = Sheet(900, dark)
    sheet.heading(title, words)
    wide = (sheet.wide - 28 - GAP * (ACROSS - 1)) / ACROSS
    for number, card in enumerate(cards):
        x = 14 + (number % ACROSS) * (wide + GAP)
        _card(sheet, card, even, x, wide)
        if number % ACROSS == ACROSS - 1 or number == len(cards) - 1:
            sheet.y += HIGH + GAP
    return sheet.drawn()


def _card(sheet: Sheet, card: dict[str, Any], even: float, x: float, wide: float) -> None:
    top, inner = sheet.y, wide - 20
    sheet.rect(x, top, wide, HIGH, sheet.colours["ground"], 1.0, f'rx="8" stroke="{sheet.colours["line"]}"')
    sheet.text(x + 10, top + 19, f"expert {card['expert']}", 13, 'font-weight="600"')
    sheet.text(x + 10, top + 34, cut(card["says"], inner, 10), 10, soft=True)
    sheet.rect(x + 10, top + 41, inner, 7, sheet.colours["line"], 1.0, 'rx="3.5"')
    sheet.rect(x + 10, top + 41, inner * min((card["share"] or 0) / even / 2, 1), 7, CATEGORY[0], 1.0, 'rx="3.5"')
    sheet.rect(x + 10 + inner / 2, top + 39, 1.5, 11, sheet.colours["faint"])
    _tokens(sheet, card["tokens"], x + 10, top + 65, inner)
    if card["label"]:
        words = f"{card['label']}: {said(card['label_share'], '.0%')} of it, lift {said(card['lift'], '')} ×"
        sheet.text(x + 10, top + HIGH - 8, cut(words, inner, 10), 10, soft=True)


def _tokens(sheet: Sheet, tokens: Sequence[tuple[str, float]], left: float, y: float, room: float) -> None:
    x = left
    for text, _ in tokens:
        short = cut(text, room / 2, 11)
        wide = width(short, 11) + 8
        if x + wide > left + room:
            break
        sheet.rect(x, y - 11, wide, 15, sheet.colours["line"], 0.6, 'rx="3"')
        sheet.text(x + 4, y, short, 11)
        x += wide + 4
