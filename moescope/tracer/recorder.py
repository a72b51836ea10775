"""What a traced model decides, forward by forward: records gathered while a forward is open, handed over when it ends."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from .. import hooks
from ..contracts import Record, Site
from ..errors import ModelError
from ..models.guidance import UNCONDITIONAL
from .activations.observers import Observers
from .activations.recursive import Repeated
from .capture.frames import Frame, Frames, Stream
from .capture.inner_runs import depth, outermost
from .capture.left_out import SURE, LeftOut
from .capture.open_calls import silent
from .capture.structure import Structure
from .capture.uncompiled import Uncompiled
from .handover.forward_buffer import ForwardBuffer
from .handover.record_batches import Forward, Job, phase, references
from .options import Options
from .progress import RunProgress
from .sequences.conditions import conditions, kept
from .sequences.generating import stops
from .sequences.sequence_info import SequenceInfo
from .sequences.streams import in_order
from .training_steps import TrainingSteps


class Recorder:
    """Hooks on a model's routers; each forward's records go to `put` with the tokens that they are of."""

    def __init__(
        self,
        model: nn.Module,
        options: Options,
        progress: RunProgress,
        structure: Structure,
        steps: TrainingSteps,
        put: Callable[[Job], None],
    ) -> None:
        self.model, self.options, self._progress, self._put = model, options, progress, put
        self._structure, self._steps = structure, steps
        self.infos: dict[str, list[SequenceInfo]] | None = None
        self.first = 0  # number of a batch's first forward
        self.told: dict[str, Any] = {}  # conditions of the forwards that follow, by the caller
        self.says: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None  # those that a pipeline around it knows
        self.left_out = LeftOut()
        self._once = 0  # forwards in a row in which every router fired once
        self._doubled: tuple[list[SequenceInfo], list[SequenceInfo]] = [], []  # of a batch, and of it with both halves
        self._records: list[tuple[Record, Frame, int]] = []
        self._sampled = False
        self._opened_at = 0.0
        self._holding = ForwardBuffer(options)
        self._handles: list[Any] = []

    def attach(self, sites: list[Site], repeated: list[Repeated]) -> None:
        """Listen from now on."""
        self._stacks = {site.key: site.stack for site in sites}
        self._paths = {site.key: site.path for site in sites}
        self._frames = Frames(self.model, [*sites, *repeated], self._opened, self._closed, self._left_out)
        self._open = self._frames.calls
        self.observers = Observers(tuple(self.options.activations), lambda: self._frames, stops(self.model))
        self._uncompiled = Uncompiled(self.model)
        self._handles = [*self._frames.handles, self._uncompiled]
        self._handles += [h for site in sites for h in site.contract.listen(site, self._emit)]
        self._handles += self.observers.hook(sites, repeated)

    def detach(self) -> None:
        """Leave the model as it was."""
        try:
            self._frames.close()
        finally:
            for handle in self._handles:
                handle.remove()
            self._structure.close()

    def flush(self) -> None:
        """Hand over the small forwards that are still held."""
        if (job := self._holding.take(self.progress())) is not None:
            self._put(job)
            whole = self.infos is None and not any(forward.tentative for forward in job.forwards)
            self.observers.sums.reach("batch" if whole else "hand-over")

    def drop(self) -> None:
        """Forget the small forwards that are still held."""
        self._holding.drop()
        self.observers.sums.take_back("hand-over")

    def progress(self) -> dict[str, Any] | None:
        """What the run can say of itself: forwards of the caller's own are whole in themselves, a batch only at its end."""
        return self._progress.progress({"forwards": self._progress.steps}) if self.infos is None else None

    def generating(self) -> AbstractContextManager[None]:
        """Inside, the model made what is fed in forwards that go on with a cache."""
        return self._frames.of_the_model()

    @contextmanager
    def conditions(self, told: Mapping[str, Any]) -> Iterator[None]:
        """Inside, forwards are told this beside their tokens."""
        before, self.told = self.told, self.told | dict(told)
        try:
            yield
        finally:
            self.told = before

    def denoising(self) -> AbstractContextManager[None]:
        """Inside, pictures of one shape are the same pictures, step after step."""
        return self._frames.of_one_picture()

    @property
    def refused(self) -> str | None:
        """Why a forward was not recorded, if one was refused."""
        return self._frames.refused

    def notes(self) -> list[str]:
        """Sentences on what was left out."""
        said = [*self.left_out.sentences(type(self.model).__name__), *self._frames.notes]
        said += [self.refused] if self.refused else []
        return said + self.observers.notes() + self._uncompiled.said

    def _emit(self, record: Record) -> None:
        frame = self._open.mine()
        if frame is None:
            self.left_out.outside += not (
                silent() or torch._C._current_graph_task_id() != -1
            )  # backward runs checkpointed layers again
        elif self._sampled:
            if self._once < SURE:
                self._progress.fired.add(record.site.key)
            self._records.append((record, frame, depth(frame) if self._once < SURE else 0))

    def _opened(self) -> None:
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            raise ModelError(
                "the model is captured into a CUDA graph inside the Tracer, and replays of it run past the hooks that record "
                "it; call the model itself there, or capture and replay outside"
            )
        self._structure.check()
        hooks.stay_last(self._handles)
        self._records = []
        self._sampled = self._steps.opens(self._progress.steps)
        self._progress.steps += 1
        self.observers.forward_begins(self._sampled)
        self._opened_at = time.perf_counter()

    def _left_out(self) -> None:
        self._records = []
        self.left_out.cut += 1
        self.observers.sums.take_back("forward")

    def _closed(self, frame: Frame) -> None:
        began = time.perf_counter()
        if self._sampled and len(self._records) < len(self._stacks):
            self._progress.fired.update(record.site.key for record, *_ in self._records)
            self.left_out.passed({record.site.key for record, *_ in self._records}, self._stacks, self._paths)
        records = self._outermost()
        if _valueless([record.experts for record, _ in records]):
            self.left_out.empty += 1
            self.observers.sums.take_back("forward")
        elif records or self.observers.looked:
            forward, routed = self._forward(frame, records, began - self._opened_at)
            if self._holding.add(forward, routed):
                self.flush()
        ended = time.perf_counter()
        self._progress.model += began - self._opened_at
        self._progress.trace += ended - began

    def _outermost(self) -> list[tuple[Record, Frame]]:
        """The records of the call itself, numbered by firing; not those of a run of the model inside it."""
        again = len({record.site.key for record, *_ in self._records}) < len(self._records)
        if not again and self._once >= SURE:  # nearly every forward: nothing to number, nothing inside another
            found, self._records = [(record, frame) for record, frame, _ in self._records], []
            return found
        records = outermost(self._records)
        self.left_out.inner += len(records) < len(self._records)
        self.left_out.late += again and self._once >= SURE
        self._once = 0 if again else self._once + 1
        self._records = []
        fired: dict[int, int] = {}
        for record, _ in records:
            number = record.site.key
            record.iteration = fired.get(number, 0)
            fired[number] = record.iteration + 1
        return records

    def _forward(self, root: Frame, records: list[tuple[Record, Frame]], seconds: float) -> tuple[Forward, list[Any]]:
        routed: list[tuple[Record, Stream]] = []
        last: Any = None
        for record, frame in records:
            site = record.site
            asked = frame, self._stacks[site.key], record.experts.shape[0] if record.rows is None else -1, site.unit
            if asked != last:  # nearly all routers of a forward see the same tokens
                last, stream = asked, self._stream(*asked)
            routed.append((record, stream))
        looked = [] if records else self.observers.looked.values()
        others = [self._stream(frame, stack, sequences * places) for frame, stack, (sequences, places) in looked]
        self._frames.settle(root.output)
        listed = in_order([stream for _, stream in routed] + others)
        row = {
            "phase": phase(self.model, listed),
            "step": self._progress.steps - 1 - self.first,
            "batch_size": listed[0].shape[0],
            "seconds": seconds,
        }
        known = {} if self.says is None else self.says(root.inputs)
        if isinstance(half := known.get("guidance"), list):
            self._halves(listed, half)
        plain, tensors = kept(known | conditions(root) | self.told)
        tensors |= references(listed, root.output, self.options.predictions)
        return self._steps.filed(Forward(listed, tensors, row, conditions=plain)), routed

    def _halves(self, streams: list[Stream], half: list[str]) -> None:
        """Batches that a pipeline doubled hold every sequence twice, and the prompt is of one of the two."""
        for stream in streams:
            given = stream.infos or []
            if not given or stream.shape[0] != len(half) or len(half) % (2 * len(given)):
                continue
            if self._doubled[0] is not given:
                bare = [replace(info, text=None) for info in given]
                self._doubled = given, [*bare, *given] if half[0] == UNCONDITIONAL else [*given, *bare]
            stream.infos = self._doubled[1]

    def _stream(self, frame: Frame, stack: str, rows: int, unit: str = "token") -> Stream:
        """The tokens of so many rows under a frame, in a stack; of decisions on whole sequences or batches, those."""
        stream = self._frames.stream(frame, stack, rows, unit)
        stream.infos = None if self.infos is None else self.infos.get(stack, self.infos[""])
        return stream


def _valueless(tensors: list[Tensor]) -> bool:
    """Whether some tensor has a shape and no numbers. ModelError under `torch.vmap`, whose tensors are of no one forward."""
    if any(map(torch._C._functorch.is_batchedtensor, tensors)):
        raise ModelError(
            "the model was run under torch.vmap inside the Tracer, where a router has no rows of its own: run it outside"
        )
    return True in [tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in tensors]
