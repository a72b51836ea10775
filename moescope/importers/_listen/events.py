"""Server-sent events: each passes as soon as it is whole, and all of them together are one answer."""

import json
from collections.abc import Iterator
from typing import Any

from .asking import Asked, without

_TOLD = (b"routed_experts", b"token_ids", b"usage", b"sgl_ext")
_LAST = ("usage", "meta_info", "sgl_ext", "engine_data", "nvext", "output_ids")
_MOST = 64 << 20  # bytes of an event


class Events:
    """The events of one answer. `whole`: the answer that they make, as far as routing is concerned."""

    def __init__(self, ask: Asked) -> None:
        self.ask = ask
        self.whole: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._rest = b""

    def pass_on(self, piece: bytes) -> Iterator[bytes]:
        """What of the answer goes to the client now."""
        self._rest += piece
        while (cut := self._end()) is not None:
            event, self._rest = self._rest[:cut], self._rest[cut:]
            yield self._event(event)
        if len(self._rest) > _MOST:
            yield self.flush()

    def flush(self) -> bytes:
        """What is left without an end."""
        rest, self._rest = self._rest, b""
        return rest

    def answer(self) -> dict[str, Any] | None:
        """The answer, where there was routing in it."""
        if self._choices:
            self.whole["choices"] = [self._choices[index] for index in sorted(self._choices)]
        return self.whole or None

    def _end(self) -> int | None:
        found = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r") if (at := self._rest.find(mark)) >= 0]
        return min(found, default=None)

    def _event(self, event: bytes) -> bytes:
        text = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if not text or text == b"[DONE]":
            return event
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return event
        if not isinstance(value, dict):
            return event
        self._gather(value)
        if not any(name in text for name in _TOLD):
            return event
        mine = without(value, self.ask)
        if mine == value:
            return event
        return b"" if mine is None else b"data: " + json.dumps(mine, ensure_ascii=False).encode() + b"\n\n"

    def _gather(self, value: dict[str, Any]) -> None:
        """Add an event to the answer: ids one after another, of everything else the last."""
        for name in ("id", "request_id", "prompt_token_ids", "prompt_routed_experts"):
            if value.get(name) is not None:
                self.whole.setdefault(name, value[name])
        self.whole |= {name: value[name] for name in _LAST if value.get(name) is not None}
        for choice in value.get("choices") or []:
            if not isinstance(choice, dict):
                continue
            own = self._choices.setdefault(choice.get("index", 0), {"index": choice.get("index", 0)})
            if isinstance(choice.get("token_ids"), list):
                own["token_ids"] = own.get("token_ids", []) + choice["token_ids"]
            own |= {name: choice[name] for name in ("routed_experts", "sgl_ext") if choice.get(name) is not None}
            if isinstance(choice.get("prompt_token_ids"), list):
                own.setdefault("prompt_token_ids", choice["prompt_token_ids"])
