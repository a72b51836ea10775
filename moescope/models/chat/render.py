"""A conversation through a tokenizer's template: the text that the tokenizer renders, and whose every character is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from jinja2.exceptions import TemplateError

from ...errors import InputError
from ...foreign import doing, one_line
from ...inputs import Word
from .environment import compiled
from .marks import Lost, Mark, Marked, Origin, joined
from .reasoning import Pairs, goes_on, marks_of, thought
from .values import Items, Parts, owned

Message = Mapping[str, Any]

THOUGHTS = ("reasoning_content", "thinking", "reasoning")  # as Transformers names what was thought, the template's name first
ROLES = {"developer": "system", "model": "assistant", "function": "tool", "ipython": "tool", "observation": "tool"}
_TAG = "CONTINUED HERE "


@dataclass(frozen=True)
class Rendered:
    """Spans of `text` one after the other, without gaps, with the labels `role`, `turn` and `reasoning`; `next`: the labels
    of what a model makes behind it."""

    text: str
    spans: tuple[Word, ...]
    next: Mapping[str, str]
    marks: Pairs = field(default_factory=set)  # of thought, that the template names
    thinking: bool = False  # what comes next is thought


def render(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, where: str, generate: bool = False
) -> Rendered:
    """The conversation by the tokenizer's template; with `generate`, up to where the model speaks.

    There a last message of the assistant's is gone on with, as in Transformers' pipelines; else the template asks for a new
    one. A list of parts that are texts is one text for templates that read no lists.
    InputError where there is no template, where it fails, and where roles cannot be told.
    """
    template = _template(tokenizer, tools, where)
    plain = [_joined(message) for message in messages]
    if plain == list(messages):
        return _render(tokenizer, template, messages, tools, where, generate)
    joined_up = _render(tokenizer, template, plain, tools, where, generate)
    try:
        found = _render(tokenizer, template, messages, tools, where, generate)
    except InputError:
        return joined_up
    return found if _turns(found) >= _turns(joined_up) else joined_up  # some templates read no lists of parts


def _turns(rendered: Rendered) -> set[str | None]:
    """Of whose messages something is there."""
    return {span.labels.get("turn") for span in rendered.spans}


def _template(tokenizer: Any, tools: Sequence[Any] | None, where: str) -> str:
    if not callable(getattr(tokenizer, "get_chat_template", None)):
        what = "there is no tokenizer" if tokenizer is None else f"{type(tokenizer).__name__} has no chat templates"
        raise InputError(f"{where} is a conversation, but {what}: give texts, or a tokenizer with a chat template")
    try:
        return str(tokenizer.get_chat_template(tools=tools))
    except ValueError as error:
        raise InputError(
            f"{where} is a conversation, but the tokenizer has no chat template for it: give texts, or set "
            "tokenizer.chat_template"
        ) from error


def _joined(message: Message) -> Message:
    """A message whose parts, all texts, are one text."""
    content = message.get("content")
    if not isinstance(content, list) or not content or not all(isinstance(p, Mapping) and "text" in p for p in content):
        return message
    return {**message, "content": "".join(part["text"] for part in content)}


def _render(tokenizer: Any, template: str, messages: Sequence[Message], tools: Any, where: str, generate: bool) -> Rendered:
    last = generate and role_of(messages[-1]) == "assistant" and bool(messages[-1].get("content"))
    chat = [*messages[:-1], _tagged(messages[-1])] if last else list(messages)
    with doing(f"applying the chat template to {where}", InputError):
        try:
            asked = {"tools": tools, "add_generation_prompt": generate and not last}
            text = tokenizer.apply_chat_template(chat, tokenize=False, **asked)
            marked = _marked(tokenizer, template, chat, **asked)
        except TemplateError as error:
            why = one_line(str(error)).rstrip(".")
            raise InputError(
                f"{where}: the chat template refuses this conversation ({why}): repair it, or leave it out"
            ) from error
        except Lost as error:
            raise InputError(f"{where}: roles cannot be told, for the chat template {error}: give texts instead") from error
    if str.__str__(marked) != text:
        raise InputError(
            f"{where}: roles cannot be told, for the chat template gives another text of messages whose parts are marked: give "
            "texts instead"
        )
    marked = _cut(marked, where) if last else marked
    following = {"role": "assistant", "turn": str(len(messages) - last)}
    spans = tuple(_spans(marked, template))
    return Rendered(str.__str__(marked), spans, following, marks_of(template), goes_on(marked, template))


def _tagged(message: Message) -> Message:
    """A message with a tag at its end, where it is to be gone on with."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + _TAG}
    last = max((n for n, part in enumerate(content) if "text" in part), default=None)
    return {**message, "content": [{**p, "text": p["text"] + _TAG} if n == last else p for n, p in enumerate(content)]}


def _cut(text: Marked, where: str) -> Marked:
    """All before the tag; with the white space that a template takes from a message's end taken from there."""
    place = text.rfind(_TAG.strip())
    if place < 0:
        raise InputError(f"{where}: the chat template leaves the last message out, so it cannot be gone on with: take it away")
    return text[:place] if text.startswith(_TAG, place) else text[:place].rstrip()


def role_of(message: Message) -> str:
    """Who speaks, by the names that labels have."""
    return ROLES.get(str(message.get("role")), str(message.get("role")))


def _marked(tokenizer: Any, template: str, messages: Sequence[Message], tools: Any, **asked: Any) -> Marked:
    """What the template gives of marked messages."""
    chat = [_message(message, turn) for turn, message in enumerate(messages)]
    told = None if tools is None else owned(list(tools), Origin("system"))
    handed = {**tokenizer.special_tokens_map, **asked}
    return joined((compiled(template).render(messages=chat, tools=told, documents=None, **handed), ""))


def _message(message: Message, turn: int) -> dict[str, Any]:
    """A message's fields, marked, as Transformers hands them on: none that is None, thoughts under each of their names."""
    own = Origin(role_of(message), turn)
    thinks = Origin(own.role, turn, reasoning=True)
    fields = {key: value for key, value in message.items() if value is not None}
    if (thoughts := next((fields[key] for key in THOUGHTS if key in fields), None)) is not None:
        fields = {"thinking": thoughts, **fields, "reasoning_content": thoughts}
    made = {key: value if key == "role" else owned(value, thinks if key in THOUGHTS else own) for key, value in fields.items()}
    if isinstance(content := made.get("content"), Items):
        made["content"] = parts = Parts(content)
        parts.origin = own
    return made


def _spans(text: Marked, template: str) -> Iterator[Word]:
    """Runs of characters with the same labels."""
    thinking = thought(text, template)
    place = 0
    for labels, run in groupby(zip(text.marks, thinking), lambda pair: _labels(*pair)):
        size = len(list(run))
        yield Word(place, place + size, dict(labels))
        place += size


def _labels(mark: Mark, thinking: bool) -> tuple[tuple[str, str], ...]:
    if mark is None:
        return (("role", "template"),)
    turn = () if mark.turn is None else (("turn", str(mark.turn)),)
    return (("role", mark.role), *turn, *((("reasoning", "true"),) if thinking or mark.reasoning else ()))
