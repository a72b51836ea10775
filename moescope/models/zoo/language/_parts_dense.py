"""What mixtures that weigh all their experts are made of: gates that return the weights, and a sum that follows them.

A gate is called with tokens (T, H) and returns (weights (T, E), logits (T, E) or None); `mixes` says what the weights are:
dense (all of them count), tree (of a node, whose experts may be mixtures too), token_choice (zero outside the top k).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._parts_text import feed_forward

Weights = tuple[Tensor, Tensor | None]


class Softmax(nn.Module):
    """softmax(W x + b) over all experts."""

    score = "softmax"

    def __init__(self, hidden: int, count: int, mixes: str = "dense") -> None:
        super().__init__()
        self.linear, self.mixes = nn.Linear(hidden, count), mixes

    def forward(self, hidden: Tensor) -> Weights:
        """(T, H) → (T, E) twice"""
        logits = self.linear(hidden)
        return logits.softmax(-1), logits


class Mixture(nn.Module):
    """Σ w_e f_e(x); experts that are no mixtures run on the tokens alone whose weight for them is not 0."""

    def __init__(self, gate: nn.Module, experts: list[nn.Module] | nn.ModuleList) -> None:
        super().__init__()
        self.gate = gate
        self.experts = experts if isinstance(experts, nn.ModuleList) else nn.ModuleList(experts)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., H) → (..., H)"""
        flat = hidden.reshape(-1, hidden.shape[-1])
        weights, _ = self.gate(flat)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            some = slice(None) if isinstance(expert, Mixture) else weights[:, number].nonzero()[:, 0]
            made = expert(flat[some]) * weights[some, number, None]
            out = out + made if isinstance(some, slice) else out.index_add(0, some, made)
        return out.view_as(hidden)


def experts(hidden: int, count: int) -> list[nn.Module]:
    """`count` feed-forwards."""
    return [feed_forward(hidden, hidden) for _ in range(count)]


def square_of_variation(values: Tensor) -> Tensor:
    """() squared coefficient of variation of (E,) values (Shazeer et al. 2017, eq. 7)."""
    return F.relu(values.var(unbiased=False)) / (values.mean() ** 2 + 1e-10)
