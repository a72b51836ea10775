"""What a processor is asked for a record: the record's text with the word for each of its media where they belong.

A text that has the processor's own words for media is taken as it is. Else `<image>`, `<video>` and `<audio>` in it say where
they belong, and where nothing says it they come first; such a text is the user's turn in the processor's chat template, or,
where it has none, a plain text with its words. Conversations have parts for their media already.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...foreign import said
from ...inputs import Example, Medium
from .. import chat
from .processor import KINDS, Asked, takes, token_of

_GENERIC = re.compile(r"<(image|video|audio)>")
Part = dict[str, str]


@dataclass(frozen=True)
class Question:
    """What is asked, whose each character of it is (None: of a plain text), and where pieces of the record's text stand in it.

    `shown`: role and turn of whoever shows each of its media, in order. `kept`: (place in the question, place in the record's
    text, characters) of each piece; None where nobody knows.
    """

    asked: Asked
    rendered: chat.Rendered | None
    shown: tuple[tuple[str, int], ...]
    kept: tuple[tuple[int, int, int], ...] | None


class _Talker:
    """A processor as `chat` knows tokenizers."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.special_tokens_map = processor.tokenizer.special_tokens_map

    def get_chat_template(self, tools: Any = None) -> str:
        """The template's source; ValueError where there is none."""
        found = self.processor.chat_template
        found = found.get("tool_use" if tools and "tool_use" in found else "default") if isinstance(found, Mapping) else found
        if found is None:
            return str(self.processor.tokenizer.get_chat_template(tools=tools))
        return str(found)

    def apply_chat_template(self, messages: Any, **asked: Any) -> str:
        """Messages as the processor renders them."""
        return str(self.processor.apply_chat_template(messages, **asked))


def ask(processor: Any, example: Example, answer: bool) -> Question:
    """What to ask for a text or conversation with media; with `answer` the template opens the model's turn.

    InputError naming the record where text and media do not fit, the processor does not take them, or its template fails.
    """
    where, text = f"{example.source}, row {example.row}", example.text or ""
    _check(processor, example, where)
    if example.messages:
        rendered = chat.render(_Talker(processor), example.messages, example.tools or None, where, answer)
        return Question(Asked(rendered.text, example.media, where), rendered, _shown(example.messages), None)
    own = {kind: token for kind in KINDS if (token := token_of(processor, kind)) is not None}
    if any(token in text for token in own.values()):
        fits({kind: text.count(token) for kind, token in own.items()}, example.media, where)
        return Question(Asked(text, ordered(text, own, example.media), where), None, (), ((0, 0, len(text)),))
    parts = parts_of(text, example.media, where)
    media = in_order_of([part["type"] for part in parts], example.media)
    if getattr(processor, "chat_template", None) is None:
        plain = "".join(part.get("text", own.get(part["type"], "")) for part in parts)
        return Question(Asked(plain, media, where), None, (), _kept(plain, parts, text))
    whose, plain = _turn(processor, parts, answer, where)
    shown = _shown([{"role": "user", "content": parts}])
    return Question(Asked(plain, media, where), whose, shown, _kept(plain, parts, text))


def _shown(messages: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """(role, turn) of whoever shows each medium of a conversation."""
    return tuple(
        (chat.role_of(message), turn)
        for turn, message in enumerate(messages) if isinstance(message.get("content"), list)
        for part in message["content"] if part.get("type") in KINDS
    )  # fmt: skip


def _turn(processor: Any, parts: list[Part], answer: bool, where: str) -> tuple[chat.Rendered | None, str]:
    """The user's turn in the template, with roles where they can be told."""
    turn = [{"role": "user", "content": parts}]
    try:
        rendered = chat.render(_Talker(processor), turn, None, where, answer)
        return rendered, rendered.text
    except InputError:  # a plain text asked for no roles
        try:
            return None, str(processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=answer))
        except Exception as error:  # Jinja's, and what templates raise on purpose
            raise InputError(f"{where}: the chat template of {type(processor).__name__} fails ({said(error)})") from error


def _check(processor: Any, example: Example, where: str) -> None:
    for medium in example.media:
        if not takes(processor, medium.kind):
            known = ", ".join(kind for kind in KINDS if takes(processor, kind))
            raise InputError(
                f"{where} has {medium.kind} beside its text, which {type(processor).__name__} does not take (it takes {known})"
            )


def parts_of(text: str, media: Sequence[Medium], where: str) -> list[Part]:
    """Content parts of a message: pieces of text, and where media belong. InputError where there are more words than media."""
    kinds = {medium.kind for medium in media}
    if not any(match[1] in kinds for match in _GENERIC.finditer(text)):
        shown: list[Part] = [{"type": medium.kind} for medium in media]
        return [*shown, {"type": "text", "text": text}]
    fits({kind: text.count(f"<{kind}>") for kind in KINDS}, media, where)
    pieces = _GENERIC.split(text)
    found = [{"type": piece} if n % 2 else {"type": "text", "text": piece} for n, piece in enumerate(pieces)]
    return [part for part in found if part.get("text", "-")]


def fits(words: Mapping[str, int], media: Sequence[Medium], where: str) -> None:
    """InputError unless a text speaks of as many media of every kind as there are."""
    for kind, count in words.items():
        there = sum(medium.kind == kind for medium in media)
        if count != there:
            raise InputError(f"{where}: its text speaks of {count} {kind}s and there are {there}; make them alike")


def ordered(text: str, own: Mapping[str, str], media: Sequence[Medium]) -> tuple[Medium, ...]:
    """Media in the order of the words for them."""
    places = sorted((match.start(), kind) for kind, token in own.items() for match in re.finditer(re.escape(token), text))
    return in_order_of([kind for _, kind in places], media)


def in_order_of(kinds: Sequence[str], media: Sequence[Medium]) -> tuple[Medium, ...]:
    """Media in the order of their kinds; of one kind in their own."""
    waiting = {kind: iter([medium for medium in media if medium.kind == kind]) for kind in KINDS}
    return tuple(next(waiting[kind]) for kind in kinds if kind in waiting)


def _kept(plain: str, parts: list[Part], text: str) -> tuple[tuple[int, int, int], ...] | None:
    """Where the pieces of a text stand in what was made of them; white space at their ends may be gone."""
    found, reached, own = [], 0, 0
    for part in parts:
        if "text" not in part:
            own = text.index(f"<{part['type']}>", own) + len(part["type"]) + 2 if f"<{part['type']}>" in text[own:] else own
            continue
        bare = part["text"].strip()
        at = plain.find(bare, reached)
        if at < 0:
            return None
        start = text.index(bare, own)
        found.append((at, start, len(bare)))
        reached, own = at + len(bare), start + len(bare)
    return tuple(found)
