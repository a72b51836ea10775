"""EC-DiT (Sun and others 2024, arXiv 2410.02098): in every image each expert chooses its tokens.

Section 3.2, and `models/models_ECDiT.py` of the published DiffMoE code (its baseline of that name, read in the copy
yhlleo/DiffMoE): softmax over experts for each token, then each expert takes the C = S · f / E tokens of an image that score
highest for it; the weight is the score, not renormalized, so a token has 0 to E experts. The paper's model reads text by
cross-attention; this one a class.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_diffusion import Block, DiT, PoolMoE, noise
from ._parts_text import seeded

READS = "noise"


class ExpertChoice(nn.Module):
    """(B, S, H) → chosen (B, S, E), weights (B, S, E), logits (B, S, E), C, None."""

    def __init__(self, hidden: int, experts: int, factor: float) -> None:
        super().__init__()
        self.capacity_factor, self.weight = factor, nn.Parameter(torch.randn(experts, hidden) / hidden**0.5)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, int, None]:
        """The pool is one image."""
        logits = nn.functional.linear(hidden, self.weight)
        scores = logits.softmax(-1)
        places = max(1, int(hidden.shape[1] * self.capacity_factor / len(self.weight)))
        taken = scores.topk(places, dim=1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(1, taken, True), scores, logits, places, None


def build(seed: int = 0, *, hidden: int = 32, layers: int = 2, experts: int = 4, factor: float = 1.5, heads: int = 4,
          **changes: Any) -> DiT:  # fmt: skip
    """A tiny one; `factor`: experts per token on average; `changes`: channels, patch, size, classes."""

    def make() -> nn.Module:
        moe = (PoolMoE(ExpertChoice(hidden, experts, factor), "L", hidden, 2 * hidden, experts) for _ in range(layers))
        return DiT("ec_dit", [Block(hidden, heads, m) for m in moe], hidden, **changes)

    return seeded(make, seed)


example = noise
