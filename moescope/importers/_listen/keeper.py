"""Answers of an engine's server into a store."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._core.ask import Ask
from .._core.captured import Captured, Fault, Notes
from .._core.keeping import Keeping
from .._core.model import Model
from .._core.planes import aligned
from .._core.reading import Line
from .._core.sink import Sink
from .._core.words import Tokenizer


@dataclass
class Kept:
    """One answer: the response, and what of the request is kept."""

    response: dict[str, Any]
    text: str | None = None
    start: int | None = None
    labels: dict[str, str] = field(default_factory=dict)


class Keeper(Keeping):
    """Keeps answers until `close`, which joins the run. `say` is told in a sentence what went wrong."""

    what = "an answer"

    def __init__(
        self, store: Path, model: Model, name: str, say: Callable[[str], object], tokenizer: Tokenizer | None = None
    ) -> None:
        self.store, self.model, self.name, self.tokenizer = store, model, name, tokenizer
        self._number = 0
        super().__init__(say)

    def keep(self, answer: Kept) -> None:
        """Take an answer, or lose it where the store does not keep up: nobody waits."""
        self.put(answer)

    def take(self, answer: Kept) -> None:
        """Store one answer."""
        if self.waiting:
            self.lose("the store failed a moment ago")
        else:
            self._store(answer)

    def _store(self, answer: Kept) -> None:
        sink = self.opened()
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
                self.added()
            except Fault as fault:
                sink.notes.left_out.append(str(fault))
                self.lose(str(fault))

    def new_sink(self) -> Sink:
        """One for a new run."""
        made = Sink(self.store, self.name, "listen", [self.name], Notes(), ["moescope", "listen"])
        made.tokenizer, made.doubles = self.tokenizer, None  # every answer was given, alike or not
        return made


def _reader(response: dict[str, Any]) -> Callable[..., Any]:
    from .. import sglang, vllm

    choices = response.get("choices")
    own = isinstance(choices, list) and any(isinstance(c, dict) and "sgl_ext" in c for c in choices)
    return sglang.answers if own or "meta_info" in response or "sgl_ext" in response else vllm.answers
