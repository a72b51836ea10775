"""Coloured tokens and patches as SVG: the same data as the browser draws (`colored_tokens.data_of`), for files and print."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from .svg import Drawing, cut, width

SIZE, LINE = 14.0, 27.0
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+")
HATCH = (
    '<pattern id="dropped" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="2" height="6" fill="#000" fill-opacity=".55"/></pattern>'
)


def drawn(data: dict[str, Any], title: str, words: Sequence[str], dark: bool = False, wide: float = 860) -> str:
    """An SVG picture of all tokens, with title, what is said of them, and the legend."""
    drawing = Drawing(wide, dark)
    drawing.pieces.append(f"<defs>{HATCH}</defs>")
    drawing.heading(title, words)
    drawing.chips([(str(row["expert"]), _plain(row["colour"]), str(row["n"])) for row in data["legend"]])
    if data["mode"] == "grid":
        _grid(drawing, data, range(len(data["ids"])), data["height"], data["width"], data["image"], min(wide - 28, 480))
    else:
        _text(drawing, data)
    return drawing.drawn()


def _plain(colour: str) -> str:
    """A colour as SVG takes it: of a mixture its first."""
    return found[0] if (found := re.findall(r"#[0-9A-Fa-f]{6}", colour)) else "transparent"


def _text(drawing: Drawing, data: dict[str, Any]) -> None:
    x, right = 14.0, drawing.wide - 14
    drawing.y += 16
    for i, text in enumerate(data["text"]):
        if data["panel"][i] is not None:
            continue
        number = str(data["experts"][i][0]) if data["numbers"] and data["experts"][i] else ""
        text = cut(text, right - 34, SIZE)
        wide = max(width(text, SIZE), 5) + (width(number, 9) + 2 if number else 0)
        if x > 14 and x + wide > right:
            x, drawing.y = 14.0, drawing.y + LINE
        _token(drawing, data, i, text, number, x, wide)
        x += wide + 1.5
        if data["breaks"][i]:
            x, drawing.y = 14.0, drawing.y + LINE
    drawing.y += 14
    for place, panel in enumerate(data["panels"]):
        inside = [i for i, at in enumerate(data["panel"]) if at == place]
        _grid(drawing, data, inside, panel["height"], panel["width"], panel["image"], 300)
        drawing.text(14, drawing.y + 6, panel["name"], 11.5, soft=True)
        drawing.y += 18


def _token(drawing: Drawing, data: dict[str, Any], i: int, text: str, number: str, x: float, wide: float) -> None:
    strength = data["alpha"][i] / 100
    drawing.rect(x, drawing.y - 15, wide, 20, data["colour"][i], strength, 'rx="3"')
    drawing.rect(x, drawing.y + 3, wide, 2, data["colour"][i], min(strength * 1.8, 1.0))
    fits = f'textLength="{width(text, SIZE):.1f}" lengthAdjust="spacingAndGlyphs"' if len(text) > 1 else ""
    marks = ['font-style="italic"' if data["made"][i] else ""]
    marks.append('text-decoration="line-through"' if any(data["dropped"][i]) else "")
    if data["ids"][i] == data["selected"]:
        drawing.rect(
            x - 1, drawing.y - 16, wide + 2, 22, drawing.colours["ink"], 0.001, f'stroke="{drawing.colours["ink"]}" rx="3"'
        )
    drawing.text(x, drawing.y, text, SIZE, " ".join([fits, *marks]))
    if number:
        drawing.text(x + wide - width(number, 9), drawing.y + 3, number, 9, soft=True)


def _grid(
    drawing: Drawing, data: dict[str, Any], inside: Sequence[int], rows: int, columns: int, image: str | None, room: float
) -> None:
    """Patches over their picture."""
    side = room / max(columns, 1)
    top, numbers = drawing.y, data["numbers"]
    drawing.rect(14, top, side * columns, side * rows, drawing.colours["wash"])
    if image and PICTURE.fullmatch(image):
        drawing.pieces.append(
            f'<image x="14" y="{top:.1f}" width="{side * columns:.1f}" height="{side * rows:.1f}" '
            f'preserveAspectRatio="none" style="image-rendering:pixelated" xlink:href="{escape(image)}"/>'
        )
    for i in inside:
        if data["x"][i] is None or data["y"][i] is None:
            continue
        x, y = 14 + side * data["x"][i], top + side * data["y"][i]
        drawing.rect(x, y, side, side, data["colour"][i], data["alpha"][i] / 100, 'stroke="#fff" stroke-opacity=".25"')
        if any(data["dropped"][i]):
            drawing.rect(x, y, side, side, "url(#dropped)")
        if numbers and data["experts"][i]:
            drawing.text(x + side / 2, y + side / 2 + 4, str(data["experts"][i][0]), min(12, side / 2), 'text-anchor="middle"')
        if data["ids"][i] == data["selected"]:
            drawing.rect(x, y, side, side, "#fff", 0.001, 'stroke="#fff" stroke-width="2.5"')
    drawing.y = top + side * rows + 14
