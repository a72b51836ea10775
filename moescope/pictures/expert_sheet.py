"""Cards of experts as SVG: the same as expert_cards.py draws."""

from collections.abc import Sequence
from typing import Any

from ..charts import CATEGORY
from .bars import said
from .svg import Sheet, cut, width

ACROSS, GAP, HIGH = 4, 10.0, 104.0


def drawn(cards: Sequence[dict[str, Any]], title: str, words: Sequence[str], dark: bool = False) -> str:
    """Four cards (`moescope.show.expert_cards.told`) in a row; a line stands at an even load."""
    sheet = Sheet(900, dark)
    sheet.heading(title, words)
    wide = (sheet.wide - 28 - GAP * (ACROSS - 1)) / ACROSS
    for number, card in enumerate(cards):
        x = 14 + (number % ACROSS) * (wide + GAP)
        _card(sheet, card, x, wide)
        if number % ACROSS == ACROSS - 1 or number == len(cards) - 1:
            sheet.y += HIGH + GAP
    return sheet.drawn()


def _card(sheet: Sheet, card: dict[str, Any], x: float, wide: float) -> None:
    top, inner = sheet.y, wide - 20
    sheet.rect(x, top, wide, HIGH, sheet.colours["ground"], 1.0, f'rx="8" stroke="{sheet.colours["line"]}"')
    sheet.text(x + 10, top + 19, f"expert {card['expert']}", 13, 'font-weight="600"')
    sheet.text(x + 10, top + 34, cut(card["says"], inner, 10), 10, soft=True)
    sheet.rect(x + 10, top + 41, inner, 7, sheet.colours["line"], 1.0, 'rx="3.5"')
    sheet.rect(x + 10, top + 41, inner * min((card["share"] or 0) / card["even"] / 2, 1), 7, CATEGORY[0], 1.0, 'rx="3.5"')
    sheet.rect(x + 10 + inner / 2, top + 39, 1.5, 11, sheet.colours["faint"])
    _tokens(sheet, card["words"], x + 10, top + 65, inner)
    if card["label"]:
        span = f"[{said(card['low'], '.1f')}, {said(card['high'], '.1f')}]"
        words = f"{card['label']}: lift {said(card['lift'], '.1f')} × {span}"
        sheet.text(x + 10, top + HIGH - 8, cut(words, inner, 10), 10, soft=True)


def _tokens(sheet: Sheet, tokens: Sequence[str], left: float, y: float, room: float) -> None:
    x = left
    for text in tokens:
        short = cut(text, room / 2, 11)
        wide = width(short, 11) + 8
        if x + wide > left + room:
            break
        sheet.rect(x, y - 11, wide, 15, sheet.colours["line"], 0.6, 'rx="3"')
        sheet.text(x + 4, y, short, 11)
        x += wide + 4
