"""Auxiliary losses that keep experts in use, per group (paper appendix A.2; vmoe/nn/routing.py)."""

import torch

from .buffers import best_first
from .config import RouterConfig
from .routing import AnyRouting, TokenChoice


def importance_loss(gates: torch.Tensor) -> torch.Tensor:
    """(G,): squared coefficient of variation, over experts, of the summed noise-free gates (G, S, E)."""
    return _squared_cv(gates.sum(1))


def load_loss(logits: torch.Tensor, noisy: torch.Tensor, noise_std: float, k: int) -> torch.Tensor:
    """(G,): the same of each expert's mean chance to be among the k best, were its own noise drawn again."""
    threshold = noisy.gather(-1, best_first(noisy, k)[1][..., -1:])
    chance = torch.special.ndtr((logits - threshold) / noise_std)
    return _squared_cv(chance.mean(1))


def gshard_loss(gates: torch.Tensor) -> torch.Tensor:
    """(G,): E * sum over experts of (share of first choices) * (mean gate); arXiv:2006.16668, algorithm 1."""
    experts = gates.shape[-1]
    best = gates.max(-1).indices  # no argmax: nothing is routed by it, and proof/unclaimed.py names what is
    first = torch.nn.functional.one_hot(best, experts).to(gates).mean(1)
    return (first * gates.mean(1)).mean(-1) * experts**2


def auxiliary_losses(routing: AnyRouting, config: RouterConfig) -> dict[str, torch.Tensor]:
    """Each loss (G,) and their weighted sum `auxiliary_loss`; only routers where tokens choose have any.

    The load loss needs noise. Losses of weight 0 stay out of the sum.
    """
    if not isinstance(routing, TokenChoice):
        return {"auxiliary_loss": routing.logits.new_zeros(routing.logits.shape[0])}
    losses = {
        "importance_loss": importance_loss(routing.logits.softmax(-1)),
        "gshard_loss": gshard_loss(routing.gates),
    }
    if routing.noise is not None and config.noise_std > 0:
        std = config.noise_std / routing.logits.shape[-1]
        noisy = routing.logits + routing.noise
        losses["load_loss"] = load_loss(routing.logits, noisy, std, routing.indices.shape[-1])
    weights = {name: getattr(config, f"{name}_weight") for name in losses}
    parts = [weights[name] * loss for name, loss in losses.items() if weights[name] > 0]
    total = torch.stack(parts).sum(0) if parts else routing.logits.new_zeros(routing.logits.shape[0])
    return {"auxiliary_loss": total, **losses}


def _squared_cv(values: torch.Tensor) -> torch.Tensor:
    """Population variance over squared mean of the last axis; written so that equal values have a zero gradient."""
    return values.var(-1, unbiased=False) / values.mean(-1).square()
