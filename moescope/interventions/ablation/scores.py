"""What an ablation changes, place by place: loss, output distribution, correctness, margin, downstream routing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...contracts import Call
from ...errors import InputError
from ..data import Batch

NAMES = ("delta_nll", "kl", "delta_correct", "delta_margin", "rerouted")


@dataclass(eq=False)
class Outcome:
    """One forward at its N places with a target: log probabilities (N, V) in float32, targets (N,).

    routes: who was executed where, {site name: (T, k) sorted, -1 for none}.
    """

    log_p: Tensor
    targets: Tensor
    routes: dict[str, Tensor]

    @cached_property
    def p(self) -> Tensor:
        """(N, V) probabilities."""
        return self.log_p.exp()

    @cached_property
    def target(self) -> Tensor:
        """(N,) log probability of the target."""
        return self.log_p.gather(-1, self.targets[:, None])[:, 0]

    @cached_property
    def best(self) -> tuple[Tensor, Tensor]:
        """(N, 2) largest log probabilities and where."""
        values, where = self.log_p.topk(2, -1)
        return values, where

    @property
    def correct(self) -> Tensor:
        """(N,) 1 where the target is the most probable."""
        return (self.best[1][:, 0] == self.targets).float()

    @property
    def margin(self) -> Tensor:
        """(N,) log probability of the target minus that of the best other."""
        values, where = self.best
        return self.target - torch.where(where[:, 0] == self.targets, values[:, 1], values[:, 0])


def outcome(output: Any, batch: Batch, calls: Mapping[str, list[Call]]) -> Outcome:
    """From what the model returned. InputError if that has no logits over tokens or classes."""
    logits = getattr(output, "logits", None)
    if logits is None:
        raise InputError("the model returns no logits, so it has no loss to change: ablate the model with its head")
    logits = logits[:, None] if logits.dim() == 2 else logits[:, : batch.targets.shape[1]]
    there = batch.targets >= 0
    log_p = torch.log_softmax(logits[there].float(), -1)
    return Outcome(log_p, batch.targets[there], {n: _executed(c[-1]) for n, c in calls.items() if c})


def compare(base: Outcome, made: Outcome, batch: Batch, routers: Collection[str]) -> dict[str, Tensor]:
    """(N,) of each of NAMES: change against the baseline. KL is of baseline from ablated: Σ p log(p / q), nats.

    rerouted: share of `routers` (site names, those after the edit) whose executed set of experts differs at the place read.
    """
    return {
        "delta_nll": base.target - made.target,
        "kl": (base.p * (base.log_p - made.log_p)).sum(-1),
        "delta_correct": made.correct - base.correct,
        "delta_margin": made.margin - base.margin,
        "rerouted": _rerouted(base, made, batch, routers)[batch.targets >= 0],
    }


def _executed(call: Call) -> Tensor:
    record = call.record
    gone = record.weights == 0 if record.dropped is None else record.dropped
    if record.site.kind == "soft":
        return record.experts[:, :0]
    return torch.where(gone, -1, record.experts).sort(-1).values


def _rerouted(base: Outcome, made: Outcome, batch: Batch, routers: Collection[str]) -> Tensor:
    """(rows, places) mean over routers that look at all places of the stack that is scored (images: over their tokens)."""
    rows, places = batch.targets.shape
    shares = []
    for name, was in base.routes.items():
        now = made.routes.get(name)
        if name not in routers or now is None or len(was) % rows or now.shape != was.shape:
            continue
        changed = (now != was).any(-1).float().view(rows, -1)
        if changed.shape[1] == places + 1:
            shares.append(changed[:, :-1])
        elif places == 1:
            shares.append(changed.mean(1, keepdim=True))
    return torch.stack(shares).mean(0) if shares else torch.zeros(rows, places, device=batch.targets.device)
