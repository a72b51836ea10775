"""Text from data, made safe and readable: escaped for HTML and Markdown, control characters shown, length bounded."""

import html
import re
import unicodedata
from typing import Any

from ..words import percent

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|$:~<>&@^=])")
share = percent  # 0.1234 as 12.3 %: one form in texts, pages and files
_BIDI = dict.fromkeys(map(ord, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"))


def clean(text: str | None, limit: int = 60) -> str:
    """One line: control characters as their pictures, direction overrides gone, long text cut in the middle."""
    shown = "".join(map(_visible, (text or "")[: 4 * limit].translate(_BIDI)))
    if len(shown) <= limit and len(text or "") <= 4 * limit:
        return shown
    tail = limit // 4
    return f"{shown[: limit - tail - 1]}…{_end(text or '', tail)}"


def _end(text: str, count: int) -> str:
    return "".join(map(_visible, text[-count:].translate(_BIDI)))


def _visible(char: str) -> str:
    code = ord(char)
    if code < 32:
        return {10: "↵", 9: "⇥"}.get(code, chr(0x2400 + code))
    if code == 127:
        return "␡"
    return "�" if unicodedata.category(char) in ("Cs", "Cn", "Co") else char


def token(text: str | None, limit: int = 40) -> str:
    """A token for reading: the tokenizer's marks for a space become a space."""
    return clean((text or "").replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n").replace("ĉ", "\t"), limit)


def visible(text: str | None, limit: int = 40) -> str:
    """A token in a list, where its spaces must be seen."""
    shown = token(text, limit)
    return shown.replace(" ", "·") if not shown.strip() or shown != shown.strip() else shown


def markup(text: Any, limit: int = 300) -> str:
    """Safe inside HTML."""
    return html.escape(clean(str(text), limit), quote=True)


def plain(text: Any, limit: int = 120) -> str:
    """Safe inside Markdown: nothing in it is formatting, a link, a formula or an icon."""
    return _MARKDOWN.sub(r"\\\1", clean(str(text), limit))


def count(number: float | None) -> str:
    """1234567 as 1.23 M."""
    if number is None or number != number:
        return "–"
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.3g}"


def some(number: float | None, one: str, many: str = "") -> str:
    """A count with its noun: "1 token", "2 tokens", "1.23 M tokens"."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def figure(value: Any, form: str = ".3g") -> str:
    """A number in Python's `form`, or a dash where there is none."""
    return "–" if value is None or value != value else f"{value:{form}}"
