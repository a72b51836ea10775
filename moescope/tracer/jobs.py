"""One forward pass on its way to the store: tensors stacked by shape, copied once, in order.

On CUDA the copy goes to pinned memory on a side stream behind an event that only the writing thread waits for; hooks and
hand-over never synchronize. On a CPU nothing is copied.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts import Record
from ..contracts._scores import probabilities, summarize
from .options import Options

_FIELDS = (
    "experts",
    "weights",
    "logits",
    "decided_experts",
    "decided_weights",
    "dropped",
    "buffer",
    "dispatch",
    "rows",
    "pool",
)


@dataclass(eq=False)
class Stack:
    """Records of like shape from routers of one device: arrays with a leading axis over `records`."""

    records: list[Record]
    stream: Any
    tensors: dict[str, Tensor]

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors as NumPy arrays (floats as float32); on the writing thread, once the copy has arrived."""
        return {name: _numpy(tensor) for name, tensor in self.tensors.items()}


@dataclass(eq=False)
class Job:
    """What one forward pass hands over."""

    stacks: list[Stack]
    streams: list[Any]
    tensors: dict[str, Tensor]  # token ids and masks of the streams
    meta: dict[str, Any] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Held until it is written."""
        held = [t for s in self.stacks for t in s.tensors.values()] + list(self.tensors.values())
        return sum(t.numel() * t.element_size() for t in held)

    def wait(self) -> None:
        """Until the copies have arrived; on the writing thread only."""
        for event in self.events:
            event.synchronize()


def stack(records: Iterable[tuple[Record, Any]], options: Options) -> list[Stack]:
    """Group (record, stream) pairs by shape, device and score; stack each group; add entropy, log-sum-exp and margin."""
    groups: dict[Any, list[tuple[Record, Any]]] = {}
    for record, stream in records:
        groups.setdefault((id(stream), record.site.score, _shape(record)), []).append((record, stream))
    return [_stack(group, options) for group in groups.values()]


def _shape(record: Record) -> tuple[Any, ...]:
    fields = _tensors(record)
    return tuple((name, tuple(t.shape), t.dtype, t.device) for name, t in fields.items())


def _tensors(record: Record) -> dict[str, Tensor]:
    decided = record.decided or (None, None)
    values = {**record.__dict__, "decided_experts": decided[0], "decided_weights": decided[1]}
    return {name: values[name].detach() for name in _FIELDS if values.get(name) is not None}


def _stack(group: list[tuple[Record, Any]], options: Options) -> Stack:
    columns = [_tensors(record) for record, _ in group]
    tensors = {name: torch.stack([c[name] for c in columns]) for name in columns[0]}
    if options.summaries and "logits" in tensors:
        values = summarize(tensors["logits"], tensors["experts"], group[0][0].site.score)
        tensors |= dict(zip(("log_sum_exp", "entropy", "margin"), values))
    if options.monitor and "logits" in tensors:
        tensors["mean_probability"] = _mean_probability(tensors["logits"], *group[0])
    if not options.logits:
        tensors.pop("logits", None)
    tensors["experts"] = tensors["experts"].to(torch.int16)
    return Stack([record for record, _ in group], group[0][1], tensors)


def _mean_probability(logits: Tensor, record: Record, stream: Any) -> Tensor:
    """(R, E) mean over the tokens that are not padding."""
    p = probabilities(logits, record.site.score)
    if stream.mask is None or record.rows is not None:
        return p.mean(1)
    real = stream.mask.reshape(1, -1, 1).to(p.dtype)
    return (p * real).sum(1) / real.sum(1)


def references(streams: list[Any], output: Any) -> dict[str, Tensor]:
    """Token ids, masks and cache events of the streams by `number:name`, and the loss: copied on their device, since the caller
    may write something else there before they are stored."""
    found: dict[str, Tensor] = {}
    for number, stream in enumerate(streams):
        named = {"ids": stream.ids, "mask": stream.mask} | {f"event{i}": value for i, (_, value) in enumerate(stream.events)}
        found |= {f"{number}:{name}": t.detach().clone() for name, t in named.items() if torch.is_tensor(t)}
    loss: Any = getattr(output, "loss", None)
    return found | ({"loss": loss.detach().clone()} if torch.is_tensor(loss) else {})


class Copier:
    """Moves a job's tensors to the host without making anyone wait."""

    def __init__(self) -> None:
        self._sides: dict[torch.device, Any] = {}

    def send(self, job: Job) -> Job:
        """Start the copies; the job's events say when they have arrived."""
        holders = [(s.tensors, name) for s in job.stacks for name in s.tensors] + [(job.tensors, name) for name in job.tensors]
        for device in {h[n].device for h, n in holders if h[n].device.type == "cuda"}:
            job.events.append(self._copy([(h, n) for h, n in holders if h[n].device == device], device))
        return job

    def _copy(self, holders: list[tuple[dict[str, Tensor], str]], device: torch.device) -> Any:
        side = self._sides.setdefault(device, torch.cuda.Stream(device))
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for holder, name in holders:
                source = holder[name]
                target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
                target.copy_(source, non_blocking=True)
                source.record_stream(side)
                holder[name] = target
            event = torch.cuda.Event()
            event.record(side)
        return event


def _numpy(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
