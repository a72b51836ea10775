"""Pictures in SVG without a browser: text measured by the widths of Helvetica, so that lines break where they would."""

import unicodedata
from collections.abc import Iterable
from functools import cache
from html import escape

from ..charts import look

FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
# Adobe's metrics of Helvetica, printable ASCII, thousandths of the size.
_WIDTHS = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556 278 "
    "278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 611 722 "
    "667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 500 222 833 556 556 556 "
    "556 333 500 278 556 500 722 500 500 500 334 260 334 584 "
)
_KNOWN = dict(zip(map(chr, range(32, 127)), map(int, _WIDTHS.split()), strict=True))


@cache
def _width(char: str) -> int:
    if char in _KNOWN:
        return _KNOWN[char]
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Cf"):
        return 0
    return 1000 if unicodedata.east_asian_width(char) in ("W", "F") else 600


def width(text: str, size: float) -> float:
    """About how wide a text is in a sans-serif font of this size."""
    return sum(map(_width, text)) * size / 1000


def cut(text: str, most: float, size: float) -> str:
    """The text, or so much of its beginning as fits, with an ellipsis."""
    if width(text, size) <= most:
        return text
    keep = len(text)
    while keep > 1 and width(text[:keep] + "…", size) > most:
        keep -= 1
    return text[:keep] + "…"


def wrapped(words: str, most: float, size: float) -> list[str]:
    """Lines of a sentence."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if width(longer, size) <= most or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [cut(line, most, size) for line in lines]


class Drawing:
    """Pieces of a picture that is `wide` pixels wide; `y` is how far down it is filled."""

    def __init__(self, wide: float, dark: bool = False) -> None:
        self.wide, self.colours = wide, look("dark" if dark else "light")
        self.pieces: list[str] = []
        self.y = 14.0

    def rect(self, x: float, y: float, w: float, h: float, fill: str, opacity: float = 1.0, more: str = "") -> None:
        """A filled rectangle."""
        if fill != "transparent" and opacity > 0 and w > 0 and h > 0:
            self.pieces.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{escape(fill)}" '
                f'fill-opacity="{opacity:.2f}" {more}/>'
            )

    def text(self, x: float, y: float, words: str, size: float = 12, more: str = "", soft: bool = False) -> None:
        """Words on a base line at y; spaces are kept."""
        fill = self.colours["faint" if soft else "ink"]
        self.pieces.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}" xml:space="preserve" {more}>{_xml(words)}</text>'
        )

    def heading(self, title: str, words: Iterable[str]) -> None:
        """The title, and sentences below it."""
        for line in wrapped(title, self.wide - 28, 16):
            self.y += 18
            self.text(14, self.y, line, 16, 'font-weight="600"')
        for sentence in words:
            for line in wrapped(sentence, self.wide - 28, 12):
                self.y += 17
                self.text(14, self.y, line, 12, soft=True)
        self.y += 12

    def chips(self, groups: Iterable[tuple[str, str, str]]) -> None:
        """A legend: (name, colour, count)."""
        x = 14.0
        for name, colour, count in groups:
            words = f"{name}  {count}".strip()
            room = width(words, 11.5) + 30
            if x > 14 and x + room > self.wide - 14:
                x, self.y = 14.0, self.y + 19
            self.rect(x, self.y, 10, 10, colour, 1.0, f'rx="5" stroke="{self.colours["line"]}"')
            self.text(x + 15, self.y + 9, words, 11.5)
            x += room
        self.y += 24

    def drawn(self) -> str:
        """The picture."""
        high = self.y + 14
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{self.wide:.0f}" '
            f'height="{high:.0f}" viewBox="0 0 {self.wide:.0f} {high:.0f}" font-family="{FONT}">'
            f'<rect width="100%" height="100%" fill="{self.colours["ground"]}"/>{"".join(self.pieces)}</svg>\n'
        )


def _xml(text: str) -> str:
    """Text as XML takes it: what it forbids is left out."""
    allowed = (c for c in text if c in "\t\n" or 32 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE or ord(c) > 0xFFFF)
    return escape("".join(allowed), quote=True)
