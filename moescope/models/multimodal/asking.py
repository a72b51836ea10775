"""What a processor is asked for a record: the record's text with the word for each of its media where they belong.

A text that has the processor's own words for media is taken as it is. Else `<image>`, `<video>` and `<audio>` in it say where
they belong, and where nothing says it they come first; such a text is the user's turn in the processor's chat template, or, where
it has none, a plain text with its words.
"""

import re
from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from ...foreign import said
from ...inputs import Example, Medium
from .processor import KINDS, Asked, takes, token_of

_GENERIC = re.compile(r"<(image|video|audio)>")
Part = dict[str, str]


def ask(processor: Any, example: Example, answer: bool) -> Asked:
    """What to ask for a text with media; with `answer` the template opens the model's turn. InputError where they do not fit."""
    where, text = f"{example.source}, row {example.row}", example.text or ""
    _check(processor, example, where)
    own = {kind: token for kind in KINDS if (token := token_of(processor, kind)) is not None}
    if any(token in text for token in own.values()):
        fits({kind: text.count(token) for kind, token in own.items()}, example.media, where)
        return Asked(text, ordered(text, own, example.media), where)
    parts = parts_of(text, example.media, where)
    media = in_order_of([part["type"] for part in parts], example.media)
    if getattr(processor, "chat_template", None) is None:
        return Asked("".join(part.get("text", own.get(part["type"], "")) for part in parts), media, where)
    return Asked(rendered(processor, [{"role": "user", "content": parts}], answer, where), media, where)


def _check(processor: Any, example: Example, where: str) -> None:
    for medium in example.media:
        if not takes(processor, medium.kind):
            known = ", ".join(kind for kind in KINDS if takes(processor, kind))
            raise InputError(f"{where} has {medium.kind}, which {type(processor).__name__} does not take (it takes {known})")


def parts_of(text: str, media: Sequence[Medium], where: str) -> list[Part]:
    """Content parts of a message: pieces of text, and where media belong. InputError where there are more words than media."""
    kinds = {medium.kind for medium in media}
    if not any(match[1] in kinds for match in _GENERIC.finditer(text)):
        return [*({"type": medium.kind} for medium in media), {"type": "text", "text": text}]
    fits({kind: text.count(f"<{kind}>") for kind in KINDS}, media, where)
    pieces = _GENERIC.split(text)
    found = [{"type": piece} if n % 2 else {"type": "text", "text": piece} for n, piece in enumerate(pieces)]
    return [part for part in found if part.get("text", "-")]


def fits(words: dict[str, int], media: Sequence[Medium], where: str) -> None:
    """InputError unless a text speaks of as many media of every kind as there are."""
    for kind, count in words.items():
        there = sum(medium.kind == kind for medium in media)
        if count != there:
            raise InputError(f"{where}: its text speaks of {count} {kind}s and there are {there}; make them alike")


def ordered(text: str, own: dict[str, str], media: Sequence[Medium]) -> tuple[Medium, ...]:
    """Media in the order of the words for them."""
    places = sorted((match.start(), kind) for kind, token in own.items() for match in re.finditer(re.escape(token), text))
    return in_order_of([kind for _, kind in places], media)


def in_order_of(kinds: Sequence[str], media: Sequence[Medium]) -> tuple[Medium, ...]:
    """Media in the order of their kinds; of one kind in their own."""
    waiting = {kind: iter([medium for medium in media if medium.kind == kind]) for kind in KINDS}
    return tuple(next(waiting[kind]) for kind in kinds if kind in waiting)


def rendered(processor: Any, messages: list[dict[str, Any]], answer: bool, where: str) -> str:
    """Messages in a processor's chat template. InputError naming the record for which it fails."""
    try:
        return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer))
    except Exception as error:  # Jinja's, and what templates raise on purpose
        raise InputError(f"{where}: the chat template of {type(processor).__name__} fails ({said(error)})") from error
