"""DiffMoE (Shi and others 2025, arXiv 2503.14487): tokens of a whole batch compete for each expert.

Section 3 and `models/models_DiffMoE.py` (SparseMoEBlock; read in the copy yhlleo/DiffMoE). Scores are a softmax over experts.
Training: each expert takes the top S · c / E of all S tokens in the batch, and a running mean (0.95) follows the least score
that a capacity predictor gave to as many tokens. Inference: an expert takes as many tokens as the predictor puts above that
mean, those that score highest. `build` runs one training forward, so that the means are not zero as in a new model there.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_diffusion import Block, DiT, PoolMoE, noise
from ._parts_text import seeded

READS = "noise"


class BatchChoice(nn.Module):
    """(B, S, H) → chosen (B, S, E), weights (B, S, E), logits (B, S, E), places per expert while training, None."""

    expert_threshold: Tensor

    def __init__(self, hidden: int, experts: int, factor: float) -> None:
        super().__init__()
        self.capacity_factor, self.weight = factor, nn.Parameter(torch.randn(experts, hidden) / hidden**0.5)
        self.capacity_predictor = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, experts))
        self.decay = 0.95
        self.register_buffer("expert_threshold", torch.zeros(experts))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, int | None, None]:
        """The pool is the batch."""
        logits = nn.functional.linear(hidden, self.weight)
        scores, wanted = logits.softmax(-1), self.capacity_predictor(hidden.detach()).sigmoid().flatten(0, 1)
        places = int(len(wanted) * self.capacity_factor / len(self.weight)) if self.training else None
        if places is not None:
            least = wanted.detach().topk(places, dim=0).values[-1]
            self.expert_threshold = self.decay * self.expert_threshold + (1 - self.decay) * least
            counts = torch.full_like(self.expert_threshold, places)
        else:
            counts = (wanted > self.expert_threshold).sum(0)
        rank = scores.flatten(0, 1).argsort(dim=0, descending=True, stable=True).argsort(dim=0)
        return (rank < counts).view_as(scores), scores, logits, places, None


def build(seed: int = 0, *, hidden: int = 32, layers: int = 2, experts: int = 4, factor: float = 1.5, heads: int = 4,
          **changes: Any) -> DiT:  # fmt: skip
    """A tiny one; `factor`: experts per token on average while training; `changes`: channels, patch, size, classes."""

    def make() -> nn.Module:
        moe = (PoolMoE(BatchChoice(hidden, experts, factor), "BL", hidden, 2 * hidden, experts) for _ in range(layers))
        return calibrated(DiT("diffmoe", [Block(hidden, heads, m) for m in moe], hidden, **changes))

    return seeded(make, seed)


@torch.no_grad()
def calibrated(model: nn.Module) -> nn.Module:
    """One training forward on noise whose scores become the running means."""
    routers: list[Any] = [m for m in model.modules() if hasattr(m, "decay")]
    decays = [router.decay for router in routers]
    for router in routers:
        router.decay = 0.0
    model.train()(**noise(model, batch=8, places=16, seed=1))
    for router, decay in zip(routers, decays):
        router.decay = decay
    return model


example = noise
