"""DiT-MoE (Fei and others 2024, arXiv 2407.11633): a token chooses 2 of E experts, and 2 shared ones always run.

Section 3.2 and `models.py` of github.com/feizc/DiT-MoE (MoEGate, SparseMoeBlock): softmax over all experts, top-2 without
sorting, weights not renormalized; the two shared experts are one feed-forward of twice the width. The published gate also
returns an auxiliary loss, this one its logits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_diffusion import Block, DiT, Expert, noise
from ._parts_text import seeded

READS = "noise"


class Gate(nn.Module):
    """(B, S, H) → experts (B·S, k), weights (B·S, k), logits (B·S, E)."""

    def __init__(self, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k, self.weight = top_k, nn.Parameter(torch.randn(experts, hidden) / hidden**0.5)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Top-k of the softmax."""
        logits = nn.functional.linear(hidden.flatten(0, -2), self.weight)
        weights, experts = logits.softmax(-1).topk(self.top_k, sorted=False)
        return experts, weights, logits


class SparseMoE(nn.Module):
    """Experts by number, times their weights, and the shared ones."""

    def __init__(self, hidden: int, inner: int, experts: int, top_k: int, shared: int) -> None:
        super().__init__()
        self.gate, self.n_shared_experts = Gate(hidden, experts, top_k), shared
        self.experts = nn.ModuleList(Expert(hidden, inner) for _ in range(experts))
        self.shared_experts = Expert(hidden, inner * shared)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(B, S, H) → (B, S, H); the condition is in the tokens already."""
        rows = hidden.flatten(0, -2)
        experts, weights, _ = self.gate(hidden)
        made = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token, slot = (experts == number).nonzero(as_tuple=True)
            made.index_add_(0, token, expert(rows[token]) * weights[token, slot, None])
        return made.view_as(hidden) + self.shared_experts(hidden)


def build(seed: int = 0, *, hidden: int = 32, layers: int = 2, experts: int = 8, top_k: int = 2, shared: int = 2,
          heads: int = 4, **changes: Any) -> DiT:  # fmt: skip
    """A tiny one; `changes`: channels, patch, size, classes."""

    def make() -> nn.Module:
        moe = (SparseMoE(hidden, 2 * hidden, experts, top_k, shared) for _ in range(layers))
        return DiT("dit_moe", [Block(hidden, heads, m) for m in moe], hidden, **changes)

    return seeded(make, seed)


example = noise
