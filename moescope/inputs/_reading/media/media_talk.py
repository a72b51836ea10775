"""Conversations that show pictures, sound and video: parts of messages that hold them, and words for those of columns.

Read are parts of OpenAI's form ({"type": "image_url", "image_url": {"url": ...}}, "input_audio") and of Transformers' ({"type":
"image", "image": ...} or "url", "path", "base64"); a part without a source is the next one of the row's columns, and so is
`<image>`, `<video>` or `<audio>` in a message. Where nothing speaks of a row's media they come before what the user says first.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ....errors import InputError
from ..conversations import parsed
from ..options import Options
from .medium import Medium, Modality

_TYPES: dict[str, Modality] = {
    "image": "image", "image_url": "image", "input_image": "image", "video": "video", "video_url": "video", "audio": "audio",
    "audio_url": "audio", "input_audio": "audio",
}  # fmt: skip
_SOURCES = ("image", "video", "audio", "url", "path", "bytes", "base64", "data", "array")
_WORDS = re.compile(r"<(image|video|audio)>")


def spoken(cell: Any, media: Sequence[Medium], where: str, options: Options) -> tuple[Any, tuple[Medium, ...]]:
    """A cell of messages in which media are parts {"type": kind} alone, and the media in the order of these parts.

    InputError where messages speak of more media than there are, or of less than the columns hold.
    """
    given = parsed(cell)
    if not options.media or not isinstance(given, list | tuple | np.ndarray) or not all(isinstance(m, Mapping) for m in given):
        return cell, tuple(media)
    talk = _Talk(media, where, options)
    messages = [talk.message(dict(message)) for message in given]
    if talk.waiting and not talk.found:
        messages = _first(messages, [one.kind for one in talk.waiting])
        talk.found, talk.waiting = list(talk.waiting), []
    if talk.waiting:
        left = talk.waiting[0].kind
        total = sum(one.kind == left for one in media)
        spoken_of = total - sum(one.kind == left for one in talk.waiting)
        raise InputError(f"{where}: its messages speak of {spoken_of} {left}s and there are {total}; make them alike")
    return messages, tuple(talk.found)


class _Talk:
    """Media that messages were found to speak of, and those of the row's columns that nothing spoke of yet."""

    def __init__(self, media: Sequence[Medium], where: str, options: Options) -> None:
        self.waiting, self.found, self.where, self.options = list(media), list[Medium](), where, options
        self.kinds = {one.kind for one in media}

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message with its content in parts, where it has media."""
        name = "content" if "content" in message else "value"
        content = message.get(name)
        if isinstance(content, str) and any(match[1] in self.kinds for match in _WORDS.finditer(content)):
            return {**message, name: list(self._split(content))}
        if isinstance(content, list | tuple | np.ndarray) and all(isinstance(part, Mapping) for part in content):
            return {**message, name: [self._part(dict(part)) for part in content]}
        return message

    def _split(self, content: str) -> Iterator[dict[str, Any]]:
        for number, piece in enumerate(_WORDS.split(content)):
            if number % 2:
                yield self._part({"type": piece})
            elif piece:
                yield {"type": "text", "text": piece}

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        kind = _TYPES.get(str(part.get("type")))
        if kind is None:
            return {key: value for key, value in part.items() if value is not None}
        source = _source(part)
        if source is None:
            medium = next((one for one in self.waiting if one.kind == kind), None)
            if medium is None:
                there = sum(one.kind == kind for one in self.found)
                raise InputError(f"{self.where}: its messages speak of more {kind}s than there are ({there}); make them alike")
            self.waiting.remove(medium)
        else:
            number = sum(one.kind == kind for one in self.found)
            medium = Medium(kind, source, f"{self.where}, {kind} {number}", self.options.folder)
        self.found.append(medium)
        return {"type": kind}


def _source(part: Mapping[str, Any]) -> Any:
    """What a part says of where its medium is; None if it does not."""
    inner = part.get(str(part["type"]))
    if isinstance(inner, Mapping) and not {"bytes", "path", "array"} & inner.keys():
        return _source({"type": "", **inner})
    for name in (str(part["type"]), *_SOURCES):
        value = part.get(name)
        if value is not None and not (isinstance(value, str) and not value):
            bare = name in ("base64", "data") and isinstance(value, str) and not value.startswith("data:")
            return f"data:;base64,{value}" if bare else value
    return None


def _first(messages: list[dict[str, Any]], kinds: list[str]) -> list[dict[str, Any]]:
    """Messages whose first of the user shows all media before its text."""
    users = ("user", "human")
    number = next((n for n, m in enumerate(messages) if m.get("role", m.get("from")) in users), 0)
    name = "content" if "content" in messages[number] else "value"
    content = messages[number].get(name) or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    shown = {**messages[number], name: [*({"type": kind} for kind in kinds), *parts]}
    return [*messages[:number], shown, *messages[number + 1 :]]
