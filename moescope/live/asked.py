"""What a request asks of a live model, read strictly: everything is bounded before anything runs."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..inputs import Example
from ..inputs.images import decode
from ..words import Annotated, Range, check

MOST_BYTES = 24 << 20  # of a request
MOST_TEXT = 100_000  # characters of a prompt
MOST_TOKENS = 512  # that are generated
MOST_PROMPT = 2048  # tokens of a prompt
_KINDS: dict[str, Any] = {
    "model": str,
    "text": str,
    "name": str,
    "image": str,
    "picture": str,
    "tokens": Annotated[int, Range(1, MOST_TOKENS)],
    "edits": list[str],
    "score": list[int],
}


@dataclass(frozen=True)
class Asked:
    """One prompt: a text, or a conversation's `messages`, or an `image` (the bytes of a file), also beside a text.

    `tokens`: so many are generated. `edits`: what is changed in which expert, as changes.py reads it. `score`: vocabulary
    ids of a text whose log-probability under the same edits is asked for as well.
    """

    model: str
    text: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    image: bytes = field(default=b"", repr=False)
    picture: str = ""  # what the image's file is called
    tokens: int = 40
    edits: tuple[str, ...] = ()
    score: tuple[int, ...] = ()
    name: str = ""

    def data(self, pixels: bool) -> list[Any]:
        """What `moescope.inputs.read` reads, of a model that takes `pixels` alone or one of texts. InputError where nothing is
        asked."""
        if self.image and pixels:
            return [Example(self.picture or "picture", 0, "0", image=decode(self.image, self.picture or "the picture"))]
        if pixels:
            raise InputError("this model looks at pictures and reads no text: drop one")
        if self.image and self.text.strip():
            return [{"image": self.image, "text": self.text}]
        if self.image:
            raise InputError("the prompt is empty: say what is asked of the picture")
        if self.messages:
            return [list(self.messages)]
        if not self.text.strip():
            raise InputError("the prompt is empty: type a sentence, or drop a picture for a model that takes one")
        return [self.text]


def read_asked(body: bytes, model: str) -> Asked:
    """From JSON; `model` where it names none. InputError in one sentence for anything that cannot be asked."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError('the request is not JSON: send an object such as {"text": "Once upon a time"}') from error
    if not isinstance(given, dict):
        raise InputError('the request is not an object: send one such as {"text": "Once upon a time"}')
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := set(given) - {*_KINDS, "messages"}:
        raise InputError(f"a request has no field {min(unknown)[:60]!r}: there are {', '.join(sorted({*_KINDS, 'messages'}))}")
    for name in given.keys() & _KINDS:
        check(name, given[name], _KINDS[name])
    if len(given.get("text", "")) > MOST_TEXT:
        raise InputError(f"the prompt has {len(given['text']):,} characters, and at most {MOST_TEXT:,} are taken: shorten it")
    made = {name: tuple(given.pop(name)) for name in ("edits", "score") if name in given}
    if "image" in given:
        made["image"] = _image(given.pop("image"))
    if "messages" in given:
        made["messages"] = _messages(given.pop("messages"))
    return Asked(**{"model": model, **given, **made})


def _image(text: str) -> Any:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except binascii.Error as error:
        raise InputError("the picture is not base64: send the file's bytes so, or a data: address") from error


def _messages(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
        raise InputError('messages are a list of objects with a role and a content: send [{"role": "user", "content": ...}]')
    return tuple(value)
