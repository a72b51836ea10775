"""Numbers of a decision that need all logits: computed where the logits are, in float32, without waiting for the device."""

import torch
from torch import Tensor

SCORES = ("softmax", "sigmoid", "sqrtsoftplus", "probabilities")


def probabilities(logits: Tensor, score: str | None) -> Tensor:
    """(..., E) probabilities over experts from router logits, by what the router makes of them.

    Softmax routers: softmax. Routers that score every expert on its own (sigmoid, sqrt-softplus): the scores divided by their
    sum, as DeepSeek-V3 normalizes them (arXiv 2412.19437, eq. 13-16). Routers that return probabilities: those.
    """
    logits = logits.float()
    if score in (None, "softmax", "none"):
        return torch.softmax(logits, -1)
    scores = {
        "sigmoid": torch.sigmoid,
        "sqrtsoftplus": lambda x: torch.nn.functional.softplus(x).sqrt(),
        "probabilities": lambda x: x,
    }[score](logits)
    return scores / scores.sum(-1, keepdim=True)


def summarize(logits: Tensor, experts: Tensor, score: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """(log-sum-exp of the logits, entropy in nats, margin), each of shape (...), from (..., E) logits and (..., k) experts.

    The margin is the least chosen minus the best unchosen probability; it is NaN where nothing was left to choose.
    """
    p = probabilities(logits, score)
    entropy = torch.special.entr(p).sum(-1)
    log_sum_exp = torch.logsumexp(logits.float(), -1)
    inside = (experts >= 0) & (experts < p.shape[-1])
    places = experts.clamp(0, p.shape[-1] - 1).long()
    chosen = p.gather(-1, places).masked_fill(~inside, float("inf")).amin(-1)
    rest = p.scatter(-1, places, torch.where(inside, float("-inf"), p.gather(-1, places))).amax(-1)
    margin = chosen - rest
    return log_sum_exp, entropy, torch.where(margin.isinf(), float("nan"), margin)


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
        ratio = weights / _raw(logits, score).gather(-1, experts).clamp(min=1e-30)
        spread = (ratio.amax(-1) - ratio.amin(-1)) / ratio.amax(-1)
        across = (ratio.amax() - ratio.amin()) / ratio.amax() if weights.shape[-1] == 1 else torch.zeros(())
        if float(spread.max()) < 0.01 and float(across) < 0.01:
            return score
    return None


def _raw(logits: Tensor, score: str) -> Tensor:
    if score == "softmax":
        return torch.softmax(logits, -1)
    return torch.sigmoid(logits) if score == "sigmoid" else torch.nn.functional.softplus(logits).sqrt()
