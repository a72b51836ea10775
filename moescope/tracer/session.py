"""`Tracer`: listen to a model's routers while somebody runs it, and keep every decision in a store."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..contracts import Record, Site
from ..errors import ModelError
from ..models.describe import describe_model, versions
from ..models.sources import unwrap
from ..proof import Proved, example_inputs, prove
from ..store import RunWriter
from ..store.patience import patient
from ..store.replace import renew
from .clock import Clock
from .cycles import watched
from .frames import Frame, Frames, Stream
from .head import head, said_of
from .holding import Holding
from .identity import Identity, SequenceInfo, stops
from .jobs import Forward, Job, phase, references
from .likeness import likeness
from .observers import Observers, measured
from .options import Options
from .sink import Sink


class Tracer:
    """Record every router decision of `model` into `store` while the `with` block runs.

    >>> with moescope.Tracer(model, "run.duckdb", tokenizer=tokenizer):
    ...     model(**inputs)

    At attach every router is proved on a few tokens (ModelError and its kinds if that fails; then nothing is written). Padding
    is left out by the attention mask. The store opens at any time; the run joins its file when the block ends. An exception
    inside the block closes the run as `interrupted` and goes on to the caller. A model without routers whose modules fire again
    and again in one forward (HRM) is taken with `activations=["dimensionality"]`.
    """

    def __init__(
        self,
        model: Any,
        store: str | Path,
        *,
        tokenizer: Any = None,
        name: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        options: Options | None = None,
        run: Mapping[str, Any] | None = None,
        replace: bool = False,
        **settings: Any,
    ) -> None:
        self.model, self.store, self.tokenizer = unwrap(model), Path(store), tokenizer
        self.options = options or Options(**settings)
        self._run = {"name": name, **(run or {})}
        self._inputs = inputs
        self.sites: list[Site] = []
        self.proof: list[Proved] = []
        self.run: int | None = None
        self._replace = replace
        self._infos: dict[str, list[SequenceInfo]] | None = None
        self._records: list[tuple[Record, Frame]] = []
        self._outside = self._first = 0
        self._clock = Clock()
        self._writer: RunWriter | None = None
        self._continue = False
        self._notes: list[str] = list(self._run.pop("warnings", []))

    def __enter__(self) -> "Tracer":
        try:
            self._attach()
        except BaseException:
            if self._writer is not None:
                self._writer.release() if self._continue else self._writer.discard()
            raise
        return self

    def _attach(self) -> None:
        self.sites, repeated = watched(self.model, self.options, self._inputs)
        if self.sites:
            self.proof = prove(self.model, self.sites, self._inputs if self._inputs is not None else example_inputs(self.model))
        for number, site in enumerate(self.sites):
            site.extra["number"] = number
        self._stacks = [site.stack for site in self.sites]
        if self._replace and self.store.exists():
            renew(self.store)
        if self._writer is None:
            self._writer = RunWriter.create(self.store, self._head())
        self._clock.start(self._writer.part.progress.get("resume", {}))
        self._sink = Sink(self._writer, Identity.of(self._writer, self.model, self.tokenizer), self.options)
        self._holding = Holding(self.options)
        self._frames = Frames(self.model, [*self.sites, *repeated], self._opened, self._closed)
        self._observers = Observers(tuple(self.options.activations), lambda: self._frames, stops(self.model))
        self._handles = [h for site in self.sites for h in site.contract.listen(site, self._emit)] + self._frames.handles
        self._handles += self._observers.hook(self.sites, repeated)
        if "resume" not in self._writer.part.progress:  # else an earlier commit has it
            measured(self._writer, likeness(self.sites))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._frames.close()
        assert self._writer is not None
        try:
            with patient():
                self.flush()
                self._sink.finish()
                self._close(self._writer, "complete" if kind is None else "interrupted")
        finally:
            self._writer.release()

    def _close(self, writer: RunWriter, status: str) -> None:
        if status == "interrupted":
            writer.rollback()  # to the end of the last whole batch
        if writer.next["forward"]:
            measured(writer, self._observers.measures({site.extra["number"]: site.layer for site in self.sites}))
            self.run = writer.close(self._final(status), self._sink.written)
            return
        writer.discard()
        if status == "complete":
            raise ModelError(self._nothing())

    def resume(self, writer: RunWriter) -> "Tracer":
        """Go on with a run that was cut off instead of beginning one."""
        self._writer, self._continue = writer, True
        return self

    def _nothing(self) -> str:
        if self._outside:
            return (
                f"routers fired {self._outside} times, but never inside a forward of {type(self.model).__name__}: trace the "
                "module that your code calls"
            )
        return f"{type(self.model).__name__} was never run inside the Tracer, so there is nothing to store"

    @contextmanager
    def batch(
        self,
        infos: Sequence[SequenceInfo],
        progress: Mapping[str, Any] | None = None,
        decoder: Sequence[SequenceInfo] | None = None,
    ) -> Iterator[None]:
        """Say what the sequences of the next forwards are, in order (`decoder`: of the decoder's side, if it differs).

        `progress` is what the run can say of itself once they are stored.
        """
        self._infos = {"": list(infos), "decoder": list(decoder if decoder is not None else infos)}
        self._first = self._clock.steps
        yield
        self.flush()
        self._infos = None
        self._sink.put(Job([Forward([], {}, None, self._clock.progress(progress or {}))]))

    def generating(self) -> AbstractContextManager[None]:
        """Say that in forwards that go on with a cache the model made what is fed: for a loop of your own that samples."""
        return self._frames.of_the_model()

    def flush(self) -> None:
        """Hand over the small forwards that are still held."""
        # forwards of the caller's own are whole in themselves
        progress = self._clock.progress({"forwards": self._clock.steps}) if self._infos is None else None
        if (job := self._holding.take(progress)) is not None:
            self._sink.put(job)

    def note(self, sentences: Sequence[str]) -> None:
        """Add sentences to the run's warnings."""
        self._notes += sentences

    def so_far(self) -> dict[str, Any]:
        """Counts and times up to now, for a progress bar."""
        count = self._writer.next if self._writer is not None else {}
        return {"tokens": count.get("token", 0), "forwards": count.get("forward", 0)} | self._clock.times()

    def health(self) -> dict[str, dict[str, float]]:
        """Measures of every router at the last forward that was written, by its path; with `monitor=True`."""
        return dict(self._sink.health)

    def _emit(self, record: Record) -> None:
        frame = self._frames.mine()
        if frame is None:
            self._outside += 1
        elif self._sampled:
            number = record.site.extra["number"]
            self._clock.fired.add(number)
            record.iteration = self._fired.get(number, 0)
            self._fired[number] = record.iteration + 1
            self._records.append((record, frame))

    def _opened(self) -> None:
        self._sampled = self._clock.steps % self.options.every == 0
        self._clock.steps += 1
        self._fired: dict[int, int] = {}
        self._observers.forward_begins(self._sampled)
        self._opened_at = time.perf_counter()

    def _closed(self, frame: Frame) -> None:
        began = time.perf_counter()
        records, self._records = self._records, []
        if (records or self._observers.looked) and frame.output is not None:  # None: the forward failed
            forward, routed = self._forward(frame, records, began - self._opened_at)
            if self._holding.add(forward, routed):
                self.flush()
        ended = time.perf_counter()
        self._clock.model += began - self._opened_at
        self._clock.trace += ended - began

    def _forward(self, root: Frame, records: list[tuple[Record, Frame]], seconds: float) -> tuple[Forward, list[Any]]:
        routed = []
        for record, frame in records:
            rows = record.experts.shape[0] if record.rows is None else -1
            routed.append((record, self._stream(frame, self._stacks[record.site.extra["number"]], rows)))
        looked = [] if records else self._observers.looked.values()
        others = [self._stream(frame, stack, sequences * places) for frame, stack, (sequences, places) in looked]
        self._frames.settle(root.output)
        listed = list(dict.fromkeys([stream for _, stream in routed] + others))
        row = {
            "phase": phase(self.model, listed),
            "step": self._clock.steps - 1 - self._first,
            "batch_size": listed[0].shape[0],
            "seconds": seconds,
        }
        return Forward(listed, references(listed, root.output, self.options.predictions), row), routed

    def _stream(self, frame: Frame, stack: str, rows: int) -> Stream:
        """The tokens of so many rows under a frame, in a stack."""
        stream = self._frames.stream(frame, stack, rows)
        stream.infos = None if self._infos is None else self._infos.get(stack, self._infos[""])
        return stream

    def _head(self) -> dict[str, Any]:
        model = describe_model(self.model, self._run.pop("model_name", None))
        run = {**self._run, "device": str(next(self.model.parameters()).device), "dtype": model["dtype"]}
        run |= {"capture": self.options.as_dict(), "versions": versions(), "proof": [asdict(p) for p in self.proof]}
        return head(run, model, self.sites)

    def _final(self, status: str) -> dict[str, Any]:
        said = [f"{text} ({count} decisions)" for text, count in self._sink.warnings.items()]
        said += [*self._frames.notes, *self._sink.identity.notes()]
        said += [p.note for p in self.proof[:1] if p.note] + self._clock.complaint(self._sink.waited)
        return {
            "status": status,
            "finished": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
            "warnings": self._notes + said_of(self.sites, self._clock.fired) + self._observers.notes() + said,
            **self._clock.times(),
        }
