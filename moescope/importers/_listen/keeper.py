"""Answers into a store, on a thread of their own: whatever goes wrong there is counted, and no request knows of it."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...foreign import said
from .._core.ask import Ask
from .._core.captured import Captured, Fault, Notes
from .._core.model import Model
from .._core.planes import aligned
from .._core.reading import Line
from .._core.sink import Sink
from .._core.words import Tokenizer

_WAITING = 1024  # answers
_EVERY = 5.0  # seconds between shards
_AGAIN = 30.0  # seconds after which a store that failed is tried again


@dataclass
class Kept:
    """One answer: the response, and what of the request is kept."""

    response: dict[str, Any]
    text: str | None = None
    start: int | None = None
    labels: dict[str, str] = field(default_factory=dict)


class Keeper:
    """Keeps answers until `close`, which joins the run. `say` is told in a sentence what went wrong."""

    def __init__(
        self, store: Path, model: Model, name: str, say: Callable[[str], object], tokenizer: Tokenizer | None = None
    ) -> None:
        self.store, self.model, self.name, self.say, self.tokenizer = store, model, name, say, tokenizer
        self.kept = self.lost = 0
        self.runs: list[int] = []
        self._number = 0
        self._sink: Sink | None = None
        self._told: set[str] = set()
        self._not_before = self._committed = 0.0
        self._queue: queue.Queue[Kept | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def keep(self, answer: Kept) -> None:
        """Take an answer, or lose it where the store does not keep up: nobody waits."""
        try:
            self._queue.put_nowait(answer)
        except queue.Full:
            self._lose("the store does not keep up with the server")

    def close(self) -> None:
        """Store what waits, and join the run."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while True:
            try:
                answer = self._queue.get(timeout=_EVERY)
            except queue.Empty:
                self._guarded(self._commit)
                continue
            if answer is None:
                self._guarded(self._end)
                return
            if time.monotonic() < self._not_before:
                self._lose("the store failed a moment ago")
            else:
                self._guarded(lambda: self._store(answer))  # noqa: B023
            if time.monotonic() - self._committed > _EVERY:
                self._guarded(self._commit)

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            if self._sink is not None:
                self.lost += self._sink.sequences
                with suppress(Exception):
                    self._sink.discard()
            self._sink, self._not_before = None, time.monotonic() + _AGAIN
            self._lose(said(error))

    def _lose(self, why: str) -> None:
        self.lost += 1
        if why not in self._told:
            self._told.add(why)
            self.say(f"an answer was not kept ({why}); requests go on")

    def _store(self, answer: Kept) -> None:
        sink = self._open()
        request = {} if answer.start is None else {"routed_experts_prompt_start": answer.start}
        self._number += 1
        line = Line({"request": request, "response": answer.response}, self._number, Path(self.name))
        ask = Ask(sink.notes, self.model)
        for item in _reader(answer.response)(line, ask, self.model, Path(self.name)):
            try:
                if isinstance(item, Fault):
                    raise item
                assert isinstance(item, Captured)
                one = aligned(item, None, None, sink.notes)
                one.text, one.labels = answer.text, answer.labels
                sink.add(one, self.model)
                self.kept += 1
            except Fault as fault:
                sink.notes.left_out.append(str(fault))
                self._lose(str(fault))

    def _open(self) -> Sink:
        if self._sink is None:
            self._sink = Sink(self.store, self.name, "listen", [self.name], Notes(), ["moescope", "listen"])
            self._sink.tokenizer, self._sink.doubles = self.tokenizer, None  # every answer was given, alike or not
        return self._sink

    def _commit(self) -> None:
        self._committed = time.monotonic()
        if self._sink is not None and self._sink.writer is not None:
            self._sink.commit()

    def _end(self) -> None:
        if self._sink is not None and self._sink.writer is not None:
            self.runs.append(self._sink.close())
            self._sink = None


def _reader(response: dict[str, Any]) -> Callable[..., Any]:
    from .. import sglang, vllm

    choices = response.get("choices")
    own = isinstance(choices, list) and any(isinstance(c, dict) and "sgl_ext" in c for c in choices)
    return sglang.answers if own or "meta_info" in response or "sgl_ext" in response else vllm.answers
