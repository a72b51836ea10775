"""The shard function: make one stretch of a trace. The same under every engine, and as often as anybody likes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from ...errors import ModelError, MoescopeError
from ...models.describe import parameters
from ...models.loading import Loaded, load
from ...store import RunWriter
from ...store.write.many.stretches import Run, StretchWriter
from ..batches import run_batches
from ..capture.left_out import LeftOut
from ..data.feeding import pad_id
from ..data.media_feeding import to_prove_on
from ..going_on import whole_run
from ..options import Options
from ..planning import Planned, plan_of
from ..run_header import contract_warnings, proof_notes
from ..sequences.token_rows import Identity
from ..session import Tracer
from .cut import Stretch, check_split, stretches

SMALL = 100_000_000  # parameters of a model that one thread runs as fast
_COUNTED = re.compile(r"(\d+) (.*)", re.DOTALL)
Said = Callable[[int, int], object]  # sequences and tokens of the stretch that is being made


@dataclass(frozen=True)
class Task:
    """A trace, in what can be sent to another process: options of `load` and of `trace`. `threads`: of the CPU, each."""

    model: str
    inputs: Any
    store: Path
    loading: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    stream: bool = False
    name: str | None = None
    command: list[str] | None = None
    threads: int | None = None

    def loaded(self, share: int = 1) -> Loaded:
        """The model, and the threads that it runs with, as one of `share` processes of this machine."""
        loaded = load(self.model, **self.loading)
        few = parameters(loaded.model) < SMALL
        if self.threads or few or share > 1:
            torch.set_num_threads(self.threads or (1 if few else max(1, torch.get_num_threads() // share)))
        return loaded

    def planned(self, loaded: Loaded) -> Planned:
        """The model with its data."""
        plan = {"batch_size": 8, "max_tokens": None, "max_length": None, "limit": None, "generate": 0, **self.plan}
        return plan_of(
            loaded,
            self.inputs,
            plan,
            self.seed,
            self.stream,
            self.name,
            self.reading,
            self.overrides,
            self.options,
            self.command,
        )


@dataclass(frozen=True)
class Hello:
    """What a worker says once its routers are proved: the head of the run, and what decides how it is cut.

    batches: how many there are, None of a stream; rows: routed rows of one batch, about.
    """

    head: dict[str, Any]
    key: str
    batches: int | None
    rows: int


class _StretchTracer(Tracer):
    """A tracer whose rows go into stretches; it has no run of its own."""

    def _begun(self) -> RunWriter:
        return StretchWriter(self._header())

    def _close(self, writer: RunWriter, status: str) -> None:
        return None

    def begin(self, stretch: Stretch, first: bool) -> None:
        """What runs from now on is of this stretch."""
        writer, progress = self.writer, self._progress
        writer.begin(first, stretch.keys)
        progress.start({"steps": stretch.steps})
        self._recorder.left_out = LeftOut()
        self._sink.rows.identity = Identity.of(writer, self.model, self.tokenizer, self.options.pictures)
        self._sink.rows.warnings, self._sink.written = {}, {}

    def said(self, steps: int) -> dict[str, Any]:
        """How far the stretch is, and what is to be said of it, once it is whole."""
        self.flush()
        self._sink.settle()
        said = dict(self._sink.written)
        noted: dict[str, int] = {}
        for sentence in [*self._recorder.notes(), *self._sink.rows.identity.notes()]:
            count, text = found.groups() if (found := _COUNTED.fullmatch(sentence)) else (0, sentence)
            noted[text] = noted.get(text, 0) + int(count)
        own = {"steps": self._progress.steps - steps, "noted": noted}
        return said | {"resume": {**said.get("resume", {}), **own}}

    @property
    def writer(self) -> StretchWriter:
        """Of the stretch."""
        assert isinstance(self._writer, StretchWriter)
        return self._writer

    def last_words(self, so_far: Mapping[str, Any], of_data: list[str]) -> list[str]:
        """Warnings of the whole run, by what its stretches said, and what there is to be said of the data."""
        resume = so_far.get("resume", {})
        counted = [f"{text} ({count} decisions)" for text, count in resume.get("warned", {}).items()]
        noted = [f"{count} {text}" if count else text for text, count in resume.get("noted", {}).items()]
        fired = contract_warnings(self.sites, set(resume.get("fired", ())))
        return self._facts.warnings + of_data + fired + noted + counted + proof_notes(self.proof) + self.proof.left_out


class Worker:
    """A model whose routers are proved, and the data: makes any stretch of the trace. Used in a `with` block."""

    def __init__(self, planned: Planned, store: Path) -> None:
        check_split(planned)
        self.planned, self.store = planned, store
        self.tracer = cast(_StretchTracer, planned.tracer(store, kind=_StretchTracer))
        self._run: Run | None = None
        self._at = self.end = 0  # stretches that were drawn; how many there are, once the data ended
        self._drawn, self._stretches = stretches(planned, Run(store, 1, {}))
        first = next(self._stretches)
        pad = pad_id(planned.loaded) or 0
        if (inputs := to_prove_on(planned.loaded, first.batches[0].windows, pad)) is not None:
            self.tracer.prove_on(inputs)
        self._first = first.batches[0]

    def __enter__(self) -> "Worker":
        self.tracer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.tracer.__exit__(*error)

    def hello(self) -> Hello:
        """What it is that it traces."""
        rows = sum(map(len, self._first.windows)) + len(self._first.windows) * max(self.planned.asked.generate, 1)
        head = self.tracer.writer.part.head
        return Hello(head, self.planned.key, _count(self.planned), rows * max(len(head["routers"]), 1))

    def whole(self) -> int | None:
        """The run of this trace in the store, if it is complete there."""
        data = self.planned.data if self.planned.rows is not None else self.planned.read()
        return whole_run(self.store, self.planned.key, data, self.planned.asked)

    def make(self, run: Run, number: int, said: Said = lambda sequences, tokens: None) -> bool:
        """Make a stretch, unless it is there; False where the data end before it."""
        stretch = self._drawn_to(run, number)
        if stretch is None or run.has(number):
            return stretch is not None
        self.tracer.begin(stretch, first=not run.done and not number)
        before = stretch.batches[0].reached.sequences - len(stretch.batches[0].windows)
        batches, planned = iter(stretch.batches), self.planned
        for reached in run_batches(self.tracer, planned.loaded, self._drawn, batches, planned.overrides):
            said(reached.sequences - before, self.tracer.writer.next["token"] - stretch.keys.get("token", 0))
        progress = {**self.tracer.said(stretch.steps), **asdict(stretch.batches[-1].reached)}
        self.tracer.writer.finish(run.place(number), progress)
        return True

    def last_words(self, so_far: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of `runs` that are known when all stretches are made: what is to be said, and the hash of a stream."""
        for _ in self._stretches:  # what nobody asked this one for is part of the data
            self._at += 1
        told = {} if self.planned.rows is not None else {"dataset_sha256": self._drawn.digest.hexdigest()}
        return {**told, "warnings": self.tracer.last_words(so_far, self._drawn.said())}

    def _drawn_to(self, run: Run, number: int) -> Stretch | None:
        """Draw the data up to this stretch, from their beginning where it is behind."""
        if run != self._run or number < self._at:
            self._run, self._at = run, 0
            self._drawn, self._stretches = stretches(self.planned, run)
        for stretch in self._stretches:
            self._at += 1
            if stretch.number == number:
                return stretch
        self.end = self._at
        return None


def _count(planned: Planned) -> int | None:
    """Batches of a data set, by asking for them; None of a stream."""
    if planned.rows is None:
        return None
    _, found = stretches(planned, Run(Path(), 1 << 40, {}))
    return sum(len(stretch.batches) for stretch in found)


def check_same(one: Hello, other: Hello) -> None:
    """ModelError unless two workers trace the same: model, routers, data and settings."""
    for name in ("routers", "experts", "model"):
        if one.head[name] != other.head[name]:
            raise ModelError(f"two workers disagree on the {name} of what they trace; give all of them the same model")
    if (one.key, one.batches) != (other.key, other.batches):
        raise ModelError("two workers disagree on the data that they trace; give all of them the same files")


def portable(error: BaseException) -> MoescopeError:
    """The error as one that another process can be sent."""
    if isinstance(error, MoescopeError):
        return type(error)(str(error))
    return ModelError(f"a worker failed: {type(error).__name__}: {error}")
