"""Expert Race, Race-DiT (Yuan and others 2025, arXiv 2503.16057): all tokens and all experts compete in one pool.

Section 4 (its table of routing strategies was read, no code was found; identity gate and running threshold are taken from a
notes on the paper). Training: the K = B · L · k largest of all B · L · E scores run, and a running mean follows the K-th
score. Inference: what scores above that mean runs, so that an image does not depend on its batch. The gate is the identity: the
weight is the score. `build` runs one training forward, so that the mean is not zero. Its router similarity loss and its
regularization by layer belong to training and are left out.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_diffusion import Block, DiT, PoolMoE, noise
from ._parts_text import seeded
from .diffmoe import calibrated

READS = "noise"


class Race(nn.Module):
    """(B, S, H) → chosen (B, S, E), weights (B, S, E), logits (B, S, E), None, the threshold ()."""

    expert_threshold: Tensor

    def __init__(self, hidden: int, experts: int, top_k: float) -> None:
        super().__init__()
        self.top_k, self.weight, self.decay = top_k, nn.Parameter(torch.randn(experts, hidden) / hidden**0.5), 0.95
        self.register_buffer("expert_threshold", torch.zeros(()))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, None, Tensor]:
        """The pool is the batch with all experts."""
        scores = nn.functional.linear(hidden, self.weight)
        if not self.training:
            return scores > self.expert_threshold, scores, scores, None, self.expert_threshold
        most = scores.flatten().topk(max(1, int(scores[..., 0].numel() * self.top_k)))
        least = most.values[-1].detach()
        self.expert_threshold = self.decay * self.expert_threshold + (1 - self.decay) * least
        chosen = torch.zeros_like(scores, dtype=torch.bool).flatten().scatter(0, most.indices, True).view_as(scores)
        return chosen, scores, scores, None, least


def build(seed: int = 0, *, hidden: int = 32, layers: int = 2, experts: int = 4, top_k: float = 1.5, heads: int = 4,
          **changes: Any) -> DiT:  # fmt: skip
    """A tiny one; `top_k`: experts per token on average while training; `changes`: channels, patch, size, classes."""

    def make() -> nn.Module:
        moe = (PoolMoE(Race(hidden, experts, top_k), "BLE", hidden, 2 * hidden, experts) for _ in range(layers))
        return calibrated(DiT("race", [Block(hidden, heads, m) for m in moe], hidden, **changes))

    return seeded(make, seed)


example = noise
