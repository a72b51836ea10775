"""DSelect-k (Hazimeh et al. 2021, arXiv 2106.03760): k selectors, each of which picks an expert by a binary code.

Selector i gives expert e the weight r_i(e) = Π_b S(z_ib) or 1 - S(z_ib), by the bits of e, with the smooth step S, which is
exactly 0 and 1 beyond ±γ/2; the mixture is Σ_i α_i Σ_e r_i(e) f_e(x) with α = softmax(G x) (eqs. 4-6, z and α linear in x:
conditioned on examples). So it is a tree: the selectors are routers below the one that weighs them, and share the experts. In
training the selectors' entropy is added, and 1 / Σ_e r_i(e) where E is no power of two. Published code read: google-research,
dselect_k_moe/dselect_k_moe.py, `_compute_example_conditioned_expert_weights` and `_add_regularization_loss`.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ._parts_dense import Mixture, Softmax, Weights, experts
from ._parts_text import VOCABULARY, Block, Language, seeded, text_example

READS = "text"


def smooth_step(values: Tensor, width: float) -> Tensor:
    """0 up to -width/2, 1 from width/2 on, a cubic between them."""
    inside = -2 / width**3 * values**3 + 3 / (2 * width) * values + 0.5
    return torch.where(values <= -width / 2, 0.0, torch.where(values >= width / 2, 1.0, inside))


class Selector(nn.Module):
    """One expert's code for each token, as weights over all experts."""

    mixes, score = "tree", "probabilities"
    loss: Tensor | None = None
    codes: Tensor

    def __init__(self, hidden: int, count: int, width: float, entropy: float) -> None:
        super().__init__()
        bits = max(1, math.ceil(math.log2(count)))
        self.linear, self.width, self.entropy = nn.Linear(hidden, bits), width, entropy
        places = torch.arange(bits - 1, -1, -1)
        self.register_buffer("codes", (torch.arange(count)[:, None] >> places & 1).bool(), persistent=False)

    def forward(self, hidden: Tensor) -> Weights:
        """(T, H) → (T, E) with exact zeros; they are their own scores."""
        step = smooth_step(self.linear(hidden), self.width)[:, None]
        weights = torch.where(self.codes, step, 1 - step).prod(-1)
        self.loss = self._loss(weights) if self.training else None
        return weights, weights

    def _loss(self, weights: Tensor) -> Tensor:
        loss = -self.entropy * (weights * (weights + 1e-6).log()).sum()
        reachable = len(self.codes) == 1 << self.codes.shape[1]
        return loss if reachable else loss + (1 / weights.sum(-1).clamp(min=1e-6)).sum()


def build(
    seed: int = 0,
    layers: int = 2,
    hidden: int = 32,
    count: int = 8,
    top_k: int = 2,
    width: float = 1.0,
    entropy: float = 1e-3,
    vocabulary: int = VOCABULARY,
) -> nn.Module:
    """A tiny language model with `top_k` selectors over `count` experts in every layer; `width`: γ."""

    def layer() -> nn.Module:
        shared = nn.ModuleList(experts(hidden, count))
        selectors: list[nn.Module] = [Mixture(Selector(hidden, count, width, entropy), shared) for _ in range(top_k)]
        return Block(hidden, ffn=Mixture(Softmax(hidden, top_k, "tree"), selectors))

    def make() -> nn.Module:
        blocks = [layer() for _ in range(layers)]
        return Language(blocks, hidden, vocabulary, "dselect_k", num_experts=count, top_k=top_k)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
