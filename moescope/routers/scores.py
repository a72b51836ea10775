"""Numbers of a decision that need all logits: computed where the logits are, in float32, without waiting for the device."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

_FEW = 16  # experts
SCORES = ("softmax", "sigmoid", "sqrtsoftplus", "probabilities")


def probabilities(logits: Tensor, score: str | None) -> Tensor:
    """(..., E) probabilities over experts from router logits, by what the router makes of them.

    Softmax routers: softmax. Routers that score every expert on its own (sigmoid, sqrt-softplus): the scores divided by their
    sum, as DeepSeek-V3 normalizes them (arXiv 2412.19437, eq. 13-16). Routers that return probabilities: those.
    """
    scores = _scores(logits.float(), score, -1)[0]
    return scores / scores.sum(-1, keepdim=True)


def _scores(logits: Tensor, score: str | None, axis: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Unnormalized scores, their logarithms, and what was taken off the logits (softmax) before exp; experts lie on `axis`."""
    if score in (None, "softmax", "none"):
        largest = logits.amax(axis, keepdim=True)
        shifted = (logits - largest).clamp_(min=-1e30)  # an expert with logit -inf has probability and p log p of 0
        return shifted.exp(), shifted, largest.squeeze(axis)
    made = {
        "sigmoid": torch.sigmoid,
        "sqrtsoftplus": lambda x: torch.nn.functional.softplus(x).sqrt(),
        "probabilities": lambda x: x.clone(),
    }[score](logits)
    return made, made.log().clamp_(min=-1e30), None


def summarize(logits: Tensor, experts: Tensor, score: str | None, fields: Collection[str]) -> dict[str, Tensor]:
    """Of `fields`: log-sum-exp of the logits, entropy in nats, margin, each (...), from (..., E) logits and (..., k) experts.

    The margin is the least chosen minus the best unchosen probability; it is NaN where nothing was left to choose.
    """
    shape, few = logits.shape[:-1], logits.shape[-1] <= _FEW
    rows = logits.reshape(-1, logits.shape[-1]).float()
    axis = 0 if few else 1  # few experts: they go first, so that every step runs over long vectors
    rows = _turned(rows) if few else rows
    scores, logs, largest = _scores(rows, score, axis)
    total = scores.sum(axis)
    found = {}
    if "log_sum_exp" in fields:
        found["log_sum_exp"] = rows.logsumexp(axis) if largest is None else total.log() + largest
    if "entropy" in fields:
        found["entropy"] = total.log() - logs.mul_(scores).sum(axis) / total
    if "margin" in fields:
        found["margin"] = _margin(scores, experts.reshape(-1, experts.shape[-1]), axis) / total
    return {name: values.view(shape) for name, values in found.items()}


def _turned(rows: Tensor) -> Tensor:
    """(E, N) in memory from (N, E). NumPy turns narrow arrays four times as fast as PyTorch does."""
    if rows.device.type == "cpu" and not rows.requires_grad:
        return torch.from_numpy(np.ascontiguousarray(rows.numpy().T))
    return rows.t().contiguous()


def _margin(scores: Tensor, experts: Tensor, axis: int) -> Tensor:
    """(N,) least chosen minus best other of scores, which are overwritten; NaN where either is missing."""
    places = (experts.t() if axis == 0 else experts).long()
    count = scores.shape[axis]
    inside = (places >= 0) & (places < count)
    places = places.clamp(0, count - 1)
    chosen = scores.gather(axis, places)
    least = chosen.masked_fill(~inside, float("inf")).amin(axis)
    best = scores.scatter_(axis, places, torch.where(inside, float("-inf"), chosen)).amax(axis)
    margin = least - best
    return torch.where(margin.isinf(), float("nan"), margin)


def guess_score(logits: Tensor, experts: Tensor, weights: Tensor) -> str | None:
    """What a router makes of its logits, read off one record: the weights are proportional to that score at the experts.

    Rows must all agree to 1 % (bf16 routers round); None when nothing fits, or when one expert per row leaves it open and the
    weight itself is not the score.
    """
    logits, weights = logits.double(), weights.double()
    usable = (experts >= 0).all(-1) & (experts < logits.shape[-1]).all(-1) & logits.isfinite().all(-1) & (weights > 0).all(-1)
    if not bool(usable.any()):
        return None
    logits, experts, weights = logits[usable], experts[usable].long(), weights[usable]
    sums = logits.sum(-1)
    if bool((logits >= 0).all()) and bool((sums - 1).abs().max() < 1e-2):
        return "probabilities"
    for score in ("softmax", "sigmoid", "sqrtsoftplus"):
        ratio = weights / raw_scores(logits, score).gather(-1, experts).clamp(min=1e-30)
        spread = (ratio.amax(-1) - ratio.amin(-1)) / ratio.amax(-1)
        across = (ratio.amax() - ratio.amin()) / ratio.amax() if weights.shape[-1] == 1 else torch.zeros(())
        if float(spread.max()) < 0.01 and float(across) < 0.01:
            return score
    return None


def raw_scores(logits: Tensor, score: str) -> Tensor:
    """(..., E) what a router makes of its logits before it normalizes anything."""
    if score == "softmax":
        return torch.softmax(logits, -1)
    if score == "probabilities":
        return logits
    return torch.sigmoid(logits) if score == "sigmoid" else torch.nn.functional.softplus(logits).sqrt()
