"""Switch-DiT (Park and others 2024, arXiv 2403.09176): the timestep alone chooses, for all tokens of an image.

Section 3 and github.com/byeongjun-park/Switch-DiT (`models/MoE.py`, TaskMoE; `models/DiT/models.py`, DiTBlock): in each layer a
gate SiLU → linear over the timestep's embedding, softmax, top-k, weights not renormalized; experts are linear maps, and
mask = 1 + Σ w_e E_e(x). The block runs on x · mask, and (1 − mask) · x goes round it. The published gate scores all timesteps
at once from a table, which is the same for integer timesteps; experts there begin at zero, here they are random and small.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_diffusion import Block, DiT, noise
from ._parts_text import seeded

READS = "noise"


class TaskGate(nn.Module):
    """Timestep embeddings (B, H) → experts (B, k), weights (B, k), logits (B, E)."""

    def __init__(self, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k, self.linear = top_k, nn.Linear(hidden, experts)

    def forward(self, timed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Top-k of the softmax."""
        logits = self.linear(nn.functional.silu(timed)) * 8  # spread: embeddings of a random network differ little
        weights, experts = logits.softmax(-1).topk(self.top_k)
        return experts, weights, logits


class TaskMoE(nn.Module):
    """The mask (B, S, H) of an image's tokens."""

    unit = "sequence"

    def __init__(self, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = TaskGate(hidden, experts, top_k)
        self.experts = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(experts))

    def forward(self, hidden: Tensor, timed: Tensor) -> Tensor:
        """(B, S, H), (B, H) → (B, S, H)."""
        experts, weights, _ = self.gate(timed)
        made = torch.zeros_like(hidden)
        for number, expert in enumerate(self.experts):
            image, slot = (experts == number).nonzero(as_tuple=True)
            made.index_add_(0, image, expert(hidden[image]) * weights[image, slot, None, None])
        return self.beside(hidden) + made

    def beside(self, hidden: Tensor) -> Tensor:
        """What stands in the mask whoever is chosen."""
        return torch.ones_like(hidden)


class TaskBlock(Block):
    """A DiT block on x · mask, whose feed-forward is dense; `condition` holds the timestep's embedding and, behind it, all."""

    def __init__(self, hidden: int, heads: int, experts: int, top_k: int) -> None:
        super().__init__(hidden, heads, TaskMoE(hidden, experts, top_k))
        self.up, self.down = nn.Linear(hidden, 2 * hidden), nn.Linear(2 * hidden, hidden)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(B, S, H), (B, 2 H) → (B, S, H)."""
        timed, condition = condition.chunk(2, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, -1)
        mask = self.moe(hidden, timed)
        routed = hidden * mask
        routed = routed + gate1 * self.attention(self.norm1(routed) * (1 + scale1) + shift1)
        normed = self.norm2(routed) * (1 + scale2) + shift2
        return routed + gate2 * self.down(nn.functional.gelu(self.up(normed), approximate="tanh")) + (1 - mask) * hidden


def build(seed: int = 0, *, hidden: int = 32, layers: int = 3, experts: int = 4, top_k: int = 2, heads: int = 4,
          **changes: Any) -> DiT:  # fmt: skip
    """A tiny one; `changes`: channels, patch, size, classes."""

    def make() -> nn.Module:
        blocks: list[nn.Module] = [TaskBlock(hidden, heads, experts, top_k) for _ in range(layers)]
        return DiT("switch_dit", blocks, hidden, apart=True, **changes)

    return seeded(make, seed)


example = noise
