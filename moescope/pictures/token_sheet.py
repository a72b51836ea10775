"""Coloured tokens and patches as SVG: the same data as the browser draws (`colored_tokens.data_of`), for files and print."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from .svg import Sheet, cut, width

SIZE, LINE = 14.0, 27.0
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+")
HATCH = (
    '<pattern id="dropped" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="2" height="6" fill="#000" fill-opacity=".55"/></pattern>'
)


def drawn(data: dict[str, Any], title: str, words: Sequence[str], dark: bool = False, wide: float = 860) -> str:
    """An SVG picture of all tokens, with title, what is said of them, and the legend."""
    sheet = Sheet(wide, dark)
    sheet.pieces.append(f"<defs>{HATCH}</defs>")
    sheet.heading(title, words)
    sheet.chips([(str(row["expert"]), _plain(row["colour"]), str(row["n"])) for row in data["legend"]])
    if data["mode"] == "grid":
        _grid(sheet, data, range(len(data["ids"])), data["height"], data["width"], data["image"], min(wide - 28, 480))
    else:
        _text(sheet, data)
    return sheet.drawn()


def _plain(colour: str) -> str:
    """A colour as SVG takes it: of a mixture its first."""
    return found[0] if (found := re.findall(r"#[0-9A-Fa-f]{6}", colour)) else "transparent"


def _text(sheet: Sheet, data: dict[str, Any]) -> None:
    x, right = 14.0, sheet.wide - 14
    sheet.y += 16
    for i, text in enumerate(data["text"]):
        if data["panel"][i] is not None:
            continue
        number = str(data["experts"][i][0]) if data["numbers"] and data["experts"][i] else ""
        text = cut(text, right - 34, SIZE)
        wide = max(width(text, SIZE), 5) + (width(number, 9) + 2 if number else 0)
        if x > 14 and x + wide > right:
            x, sheet.y = 14.0, sheet.y + LINE
        _token(sheet, data, i, text, number, x, wide)
        x += wide + 1.5
        if data["breaks"][i]:
            x, sheet.y = 14.0, sheet.y + LINE
    sheet.y += 14
    for place, panel in enumerate(data["panels"]):
        inside = [i for i, at in enumerate(data["panel"]) if at == place]
        _grid(sheet, data, inside, panel["height"], panel["width"], panel["image"], 300)
        sheet.text(14, sheet.y + 6, panel["name"], 11.5, soft=True)
        sheet.y += 18


def _token(sheet: Sheet, data: dict[str, Any], i: int, text: str, number: str, x: float, wide: float) -> None:
    strength = data["alpha"][i] / 100
    sheet.rect(x, sheet.y - 15, wide, 20, data["colour"][i], strength, 'rx="3"')
    sheet.rect(x, sheet.y + 3, wide, 2, data["colour"][i], min(strength * 1.8, 1.0))
    fits = f'textLength="{width(text, SIZE):.1f}" lengthAdjust="spacingAndGlyphs"' if len(text) > 1 else ""
    marks = ['font-style="italic"' if data["made"][i] else ""]
    marks.append('text-decoration="line-through"' if any(data["dropped"][i]) else "")
    if data["ids"][i] == data["selected"]:
        sheet.rect(x - 1, sheet.y - 16, wide + 2, 22, sheet.colours["ink"], 0.001, f'stroke="{sheet.colours["ink"]}" rx="3"')
    sheet.text(x, sheet.y, text, SIZE, " ".join([fits, *marks]))
    if number:
        sheet.text(x + wide - width(number, 9), sheet.y + 3, number, 9, soft=True)


def _grid(
    sheet: Sheet, data: dict[str, Any], inside: Sequence[int], rows: int, columns: int, image: str | None, room: float
) -> None:
    """Patches over their picture."""
    side = room / max(columns, 1)
    top, numbers = sheet.y, data["numbers"]
    sheet.rect(14, top, side * columns, side * rows, sheet.colours["wash"])
    if image and PICTURE.fullmatch(image):
        sheet.pieces.append(
            f'<image x="14" y="{top:.1f}" width="{side * columns:.1f}" height="{side * rows:.1f}" '
            f'preserveAspectRatio="none" style="image-rendering:pixelated" xlink:href="{escape(image)}"/>'
        )
    for i in inside:
        if data["x"][i] is None or data["y"][i] is None:
            continue
        x, y = 14 + side * data["x"][i], top + side * data["y"][i]
        sheet.rect(x, y, side, side, data["colour"][i], data["alpha"][i] / 100, 'stroke="#fff" stroke-opacity=".25"')
        if any(data["dropped"][i]):
            sheet.rect(x, y, side, side, "url(#dropped)")
        if numbers and data["experts"][i]:
            sheet.text(x + side / 2, y + side / 2 + 4, str(data["experts"][i][0]), min(12, side / 2), 'text-anchor="middle"')
        if data["ids"][i] == data["selected"]:
            sheet.rect(x, y, side, side, "#fff", 0.001, 'stroke="#fff" stroke-width="2.5"')
    sheet.y = top + side * rows + 14
