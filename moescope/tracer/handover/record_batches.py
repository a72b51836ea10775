"""Forward passes on their way to the store: tensors stacked by shape, copied once, in order.

On CUDA the copy goes to pinned memory on a side stream behind an event that only the writing thread waits for; hooks and
hand-over never synchronize. On a CPU nothing is copied.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...contracts import Record
from ...routers.scores import probabilities, summarize
from ...store.physical.summary_loops import summarized
from ...store.physical.tables import STEPS
from ..options import Options
from ..training_steps import Ended

_CACHED = 1 << 15  # logits
_LOOPED = (None, "softmax", "none")  # scores of routers that summary_loops.py knows
_FIELDS = ("experts", "weights", "logits", "dropped", "buffer", "dispatch", "rows", "pool", "threshold", "executed")


@dataclass(eq=False)
class Forward:
    """One forward pass (or, without a `row`, the end of a batch): its token streams, what they refer to, what is said of it.

    conditions: {kind: number, word or tensor ((), or one of each sequence)} that it was told beside its tokens.
    """

    streams: list[Any]
    tensors: dict[str, Tensor]  # token ids and masks of the streams
    row: dict[str, Any] | None
    progress: dict[str, Any] | None = None
    part: str | None = None  # of a run with `monitor`: train | eval | alone
    tentative: bool = False  # its step may get another number when it ends
    ended: Ended | None = None  # what is over behind it
    conditions: dict[str, Any] = field(default_factory=dict)


Routed = tuple[Record, Any, int]
"""A record, its stream, and the number of its forward within the job."""


@dataclass(eq=False)
class RecordBatch:
    """Records of like shape from routers of one device: arrays with a leading axis over `routed`."""

    routed: list[Routed]
    tensors: dict[str, Tensor]

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors as NumPy arrays (floats as float32); on the writing thread, once the copy has arrived."""
        return {name: _numpy(tensor) for name, tensor in self.tensors.items()}


@dataclass(eq=False)
class Job:
    """What is handed over at once: a forward pass, or several small ones."""

    forwards: list[Forward]
    batches: list[RecordBatch] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Held until it is written."""
        held = [t for s in self.batches for t in s.tensors.values()] + [t for f in self.forwards for t in f.tensors.values()]
        return sum(t.numel() * t.element_size() for t in held)

    def wait(self) -> None:
        """Until the copies have arrived; on the writing thread only."""
        for event in self.events:
            event.synchronize()


def batch_records(routed: Iterable[Routed], options: Options) -> list[RecordBatch]:
    """Group records by shape, device and score; stack each group; add entropy, log-sum-exp and margin."""
    groups: dict[Any, list[tuple[Routed, dict[str, Tensor]]]] = {}
    for one in routed:
        record, tensors = one[0], _tensors(one[0])
        shapes = *tensors, *[(t.shape, t.dtype, t.device) for t in tensors.values()]
        own = id(one[1]) if options.monitor else 0
        groups.setdefault((own, record.site.score, record.site.kind, shapes), []).append((one, tensors))
    return [_record_batch([one for one, _ in group], [tensors for _, tensors in group], options) for group in groups.values()]


def _tensors(record: Record) -> dict[str, Tensor]:
    said = vars(record)
    found = {name: said[name] for name in _FIELDS if said[name] is not None}
    if record.decided is not None:
        found |= {"decided_experts": record.decided[0], "decided_weights": record.decided[1]}
    if torch.is_grad_enabled():
        return {name: value.detach() if value.requires_grad else value for name, value in found.items()}
    return found


def _record_batch(group: list[Routed], columns: list[dict[str, Tensor]], options: Options) -> RecordBatch:
    wanted = options.logits or options.monitor
    summaries = (
        _summaries([c["logits"] for c in columns], group, options) if options.summaries and "logits" in columns[0] else {}
    )
    names = [name for name in columns[0] if name not in ("experts", "logits") or (wanted and name == "logits")]
    tensors = {"experts": _narrow([c["experts"] for c in columns])} | {n: torch.stack([c[n] for c in columns]) for n in names}
    return RecordBatch(group, tensors | summaries)


def _narrow(experts: list[Tensor]) -> Tensor:
    """(R, T, k) int16 of experts (T, k): large ones are made narrow before they are put together, which moves less."""
    if len(experts) == 1 or experts[0].numel() < _CACHED:
        return torch.stack(experts).to(torch.int16)
    return torch.stack([one.to(torch.int16) for one in experts])


def _summaries(logits: list[Tensor], group: list[Routed], options: Options) -> dict[str, Tensor]:
    """(R, T) each: router by router where one fills the cache of a CPU, else all at once."""
    score, fields = group[0][0].site.score, options.summaries
    assert not isinstance(fields, bool)
    size, loop = logits[0].numel(), score in _LOOPED
    if logits[0].device.type == "cpu" and size * (len(logits) if loop else 1) > _CACHED:
        one_by_one = _on_host if loop else summarize
        each = [one_by_one(x, record.experts, score, fields) for x, (record, *_) in zip(logits, group)]
        found = {name: torch.stack([one[name] for one in each]) for name in each[0]}
    else:
        experts = torch.stack([record.experts for record, *_ in group])
        found = summarize(torch.stack(logits), experts, score, fields)
    if logits[0].dtype in (torch.bfloat16, torch.float16):
        found = {name: (values * STEPS[name]).round_().div_(STEPS[name]) for name, values in found.items()}
    return found


def _on_host(logits: Tensor, experts: Tensor, score: str | None, fields: Sequence[str]) -> dict[str, Tensor]:
    """(T,) summaries of one softmax router on a CPU, by a compiled loop if every logit is finite."""
    chosen = experts if "margin" in fields else experts[:, :0]
    found = summarized(logits.detach().float().contiguous().numpy(), chosen.numpy())
    return summarize(logits, experts, score, fields) if found is None else {n: torch.from_numpy(found[n]) for n in fields}


def mean_probabilities(logits: np.ndarray, score: str | None, real: np.ndarray) -> np.ndarray:
    """(R, E) mean over the tokens that are `real` (R, T) of what logits (R, T, E) become; on the writing thread."""
    p = probabilities(torch.from_numpy(logits), score).numpy()
    summed = np.where(real[..., None], p, 0).sum(1)  # padding may hold no number
    return np.asarray(summed / np.maximum(real.sum(1), 1)[:, None])


def pools(batch: RecordBatch, pool: Any, thresholds: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the record, rows) of every group of tokens that competed, with what decided: places, or a threshold."""
    for number, (record, *_) in enumerate(batch.routed):
        decided = {} if record.capacity is None else {"capacity": record.capacity}
        decided |= {} if thresholds is None else {"threshold": thresholds[number]}
        if decided:
            count = 1 if pool is None else int(pool[number].max()) + 1
            yield number, {"pool": np.arange(count), "tokens": record.pool_tokens or 0, **decided}


def phase(model: nn.Module, streams: list[Any]) -> str:
    """What a forward pass is for: train | forward (no text) | prefill; the writing thread knows which of these is a decode."""
    if model.training and torch.is_grad_enabled():
        return "train"
    return "prefill" if streams[0].kind == "text" else "forward"


def references(streams: list[Any], output: Any, predictions: bool = False) -> dict[str, Tensor]:
    """Token ids, facts and cache events of the streams by `number:name`, and the loss: copied on their device, since the caller
    may write something else there before they are stored. With `predictions` the ids that a head's logits rank first."""
    found: dict[str, Tensor] = {}
    for number, stream in enumerate(streams):
        named = {"ids": stream.ids, **stream.facts} | {f"event{i}": value for i, (_, value) in enumerate(stream.events)}
        found |= {f"{number}:{name}": t.detach().clone() for name, t in named.items() if torch.is_tensor(t)}
        logits: Any = getattr(output, "logits", None) if predictions else None
        if torch.is_tensor(logits) and _heads(logits, stream):
            found[f"{number}:predicted"] = logits.detach().argmax(-1)
    loss: Any = getattr(output, "loss", None)
    return found | ({"loss": loss.detach().clone()} if torch.is_tensor(loss) else {})


def _heads(logits: Tensor, stream: Any) -> bool:
    """Whether logits (sequences, places, ids) belong to the last places of a stream of text that the model goes on with."""
    if stream.kind != "text" or stream.stack == "encoder" or logits.dim() != 3:
        return False
    return logits.shape[0] == stream.shape[0] and 0 < logits.shape[1] <= stream.shape[1]


class Copier:
    """Moves a job's tensors to the host without making anyone wait."""

    def __init__(self) -> None:
        self._sides: dict[torch.device, Any] = {}

    def send(self, job: Job) -> Job:
        """Start the copies; the job's events say when they have arrived."""
        owners = [*(s.tensors for s in job.batches), *(f.tensors for f in job.forwards)]
        holders = [(tensors, name) for tensors in owners for name in tensors]
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
