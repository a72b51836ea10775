"""Requests of an engine into a store, on a thread of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from ..importers._core.captured import Captured, Fault, Notes
from ..importers._core.keeping import Keeping
from ..importers._core.model import Model
from ..importers._core.sink import Sink
from ..importers._core.words import Tokenizer
from .ledger import Ledger
from .recomputed import Recomputation
from .step import Begun, Sampled, Step

_WAITING = 1 << 22  # decisions that may wait for the thread: about 270 MB of top-8


@dataclass
class Engine:
    """What is recorded: `kind` as in "vLLM 0.32.0, live"; `facts`: columns of `runs` that the engine knows; `warnings`."""

    kind: str
    name: str
    model: Model
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    tokenizer: Tokenizer | None = None
    again: Recomputation = field(default_factory=lambda: Recomputation([]))


class Recorder(Keeping):
    """Takes what an engine says before, in and after its forwards; nobody waits, and nothing here is raised to the engine."""

    what = "a request"

    def __init__(self, store: Path, engine: Engine, say: Callable[[str], object]) -> None:
        self.store, self.engine = store, engine
        model = engine.model
        self.ledger = Ledger(len(model.routed), model.top_k, model.experts, engine.name)
        self._gone: set[str] = set()  # requests of which a forward was lost
        self._waits, self._lock = 0, Lock()
        self._said: set[int] = set()
        self._wrong: str | None = None  # why nothing more is kept
        super().__init__(say)

    def begun(self, begun: Begun) -> None:
        """Before a forward."""
        if begun.ended or begun.new:
            self.put(begun)

    def step(self, step: Step) -> None:
        """A forward; where the thread is too far behind, its requests are lost whole."""
        if self._weigh(step) > _WAITING:
            self._weigh(step, -1)
            self._gone.update(step.requests)
        elif not self.put(step):
            self._gone.update(step.requests)

    def sampled(self, sampled: Sampled) -> None:
        """What came of it."""
        self.put(sampled)

    def take(self, thing: Any) -> None:
        """One of the three."""
        if isinstance(thing, Step):
            self._weigh(thing, -1)
            self._again(thing)
            self.ledger.step(thing)
            self._silence()
        elif isinstance(thing, Sampled):
            for name, tokens in thing.pairs():
                self.ledger.sampled(name, tokens)
        elif isinstance(thing, Begun):
            for one in self.ledger.begin(thing):
                self._keep(one)

    def _again(self, step: Step) -> None:
        """Make decisions again whose routers' logits came with them; where they are others, nothing is kept from here on."""
        experts, weights, beside = step.snapshot.arrays()
        if "logits" not in beside or self._wrong is not None:
            return
        found = self.engine.again.wrong(experts, weights, beside["logits"])
        if found is not None:
            place, why = found
            self._wrong = (
                f"layer {self.engine.model.routed[place]}: {why}, by its router's rule ({self.engine.again.rules[place]}), "
                "so what the recorder hears cannot be what the model executes; trace it with moescope trace"
            )
            if self.sink is not None:
                self.sink.notes.say(self._wrong)

    def _weigh(self, step: Step, sign: int = 1) -> int:
        """Count a forward among those that wait; gives how many decisions do."""
        with self._lock:
            self._waits += sign * step.rows * len(self.ledger.silent)
            return self._waits

    def finish(self) -> None:
        """Requests that are still open, as far as they were forwarded."""
        for name in self.ledger.names:
            if (one := self.ledger.end(name)) is not None:
                self._keep(one)
        if self.sink is not None:
            self._notes(self.sink.notes)

    def new_sink(self) -> Sink:
        """One for a new run."""
        made = Sink(self.store, self.engine.name, self.engine.kind, [self.engine.name], Notes())
        made.tokenizer, made.facts = self.engine.tokenizer, self.engine.facts
        made.doubles = None  # every request was served, alike or not
        made.origin = f"recorded inside {self.engine.kind}: what its routers returned; nothing could be proved"
        if made.tokenizer is None:
            made.notes.lack("text", "text of tokens: the engine ran without a tokenizer.json")
        for text in self.engine.warnings:
            made.notes.say(text)
        return made

    def _keep(self, one: Captured) -> None:
        if one.request in self._gone:
            self._gone.discard(str(one.request))
            self.lose("the store does not keep up with the server")
        elif self._wrong is not None:
            self.lose(self._wrong)
        elif self.waiting:
            self.lose("the store failed a moment ago")
        else:
            self.guarded(lambda: self._add(one), 1)

    def _add(self, one: Captured) -> None:
        sink = self.opened()
        try:
            sink.add(one, self.engine.model)
            self.added()
        except Fault as fault:
            sink.notes.left_out.append(str(fault))
            self.lose(str(fault))

    def _silence(self) -> None:
        """Say of each router that wrote nothing in a forward, once."""
        for place in map(int, self.ledger.silent.nonzero()[0]):
            if place not in self._said:
                self._said.add(place)
                self.say(f"layer {self.engine.model.routed[place]} ran a forward in which its router wrote nothing down")

    def _notes(self, notes: Notes) -> None:
        for sentence, n in self.ledger.tallies.items():
            notes.count(sentence, n)
        for place in map(int, self.ledger.silent.nonzero()[0]):
            notes.say(
                f"layer {self.engine.model.routed[place]}: in {self.ledger.silent[place]:,} of {self.ledger.steps:,} forwards "
                "its router wrote nothing down (a kernel that routes by itself, or a graph that was captured before), so it "
                "has no decision there"
            )
        for sentence in self.engine.again.sentences():
            notes.say(sentence)
        if self.lost:
            notes.say(f"{self.lost:,} requests were not kept")
