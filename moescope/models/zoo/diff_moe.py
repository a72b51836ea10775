"""Diff-MoE (Cheng and others 2025, github.com/kunncheng/Diff-MoE): DiT-MoE's gate over experts that know the timestep.

Read from that repository's `models.py` (SparseMoeBlock_SpatialTemporalMoE, MoeMLP_Temporal_Calibration); the paper was not at
hand. The gate sees the modulated token only. Each expert has an adaLN of its own, of low rank, that takes the condition c:
E(x) = x + gate(c) · down((silu(W1 n) · W2 n) · channels), n = norm(x) (1 + scale(c)) + shift(c), and `channels` is one sigmoid
gate for each image, from the mean of its tokens. The shared expert knows c, and no channels. Here random where the code begins
with zeros; rotary positions and the depthwise convolution before the mixture are left out.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._parts_diffusion import Block, DiT, Expert, noise
from ._parts_text import seeded
from .dit_moe import Gate

READS = "noise"


class TimedExpert(Expert):
    """A feed-forward with a modulation of its own; rows (N, H) with their condition (N, H) and channel gates (N, I)."""

    def __init__(self, hidden: int, inner: int, rank: int) -> None:
        super().__init__(hidden, inner)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.Linear(hidden, rank, bias=False), nn.ReLU(), nn.Linear(rank, 3 * hidden))

    def forward(self, hidden: Tensor, condition: Tensor, channels: Tensor | float = 1.0) -> Tensor:  # type: ignore[override]
        """Each row on its own."""
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        normed = self.norm(hidden) * (1 + scale) + shift
        return hidden + gate * self.down_proj(F.silu(self.gate_proj(normed)) * self.up_proj(normed) * channels)


class TimedMoE(nn.Module):
    """Experts by number on (token, condition, channel gates), and a shared one."""

    def __init__(self, hidden: int, inner: int, experts: int, top_k: int, rank: int) -> None:
        super().__init__()
        self.gate = Gate(hidden, experts, top_k)
        self.experts = nn.ModuleList(TimedExpert(hidden, inner, rank) for _ in range(experts))
        self.shared_experts = TimedExpert(hidden, 2 * hidden, rank)
        self.channels = nn.Sequential(
            nn.Linear(hidden, rank, bias=False), nn.ReLU(), nn.Linear(rank, inner, bias=False), nn.Sigmoid()
        )

    def alongside(self, hidden: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """For each row its image's condition (B·S, H), and channel gates (B·S, I)."""
        places = hidden.shape[1]
        channels = self.channels(hidden.mean(1))
        return condition.repeat_interleave(places, 0), channels.repeat_interleave(places, 0)

    def beside(self, hidden: Tensor, condition: Tensor, channels: Tensor) -> Tensor:
        """The shared expert, which takes no channel gates."""
        return self.shared_experts.forward(hidden, condition)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(B, S, H), (B, H) → (B, S, H)."""
        rows, known = hidden.flatten(0, -2), self.alongside(hidden, condition)
        experts, weights, _ = self.gate(hidden)
        made = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token, slot = (experts == number).nonzero(as_tuple=True)
            made.index_add_(0, token, expert(rows[token], *(t[token] for t in known)) * weights[token, slot, None])
        return (made + self.beside(rows, *known)).view_as(hidden)


def build(seed: int = 0, *, hidden: int = 32, layers: int = 2, experts: int = 8, top_k: int = 2, rank: int = 8,
          heads: int = 4, **changes: Any) -> DiT:  # fmt: skip
    """A tiny one; `changes`: channels, patch, size, classes."""

    def make() -> nn.Module:
        moe = (TimedMoE(hidden, 2 * hidden, experts, top_k, rank) for _ in range(layers))
        return DiT("diff_moe", [Block(hidden, heads, m) for m in moe], hidden, **changes)

    return seeded(make, seed)


example = noise
