"""The sparsely-gated mixture of experts (Shazeer et al. 2017, arXiv 1701.06538): noisy top-k gating.

G(x) = softmax(KeepTopK(H(x), k)), H(x)_i = (x W_g)_i + N(0, 1) · softplus((x W_noise)_i) (eqs. 3-5). The noise is drawn in
every forward while `noisy` is set, in evaluation too, so that what is recorded cannot be computed again from x. In
training the importance loss (eq. 7) and the load loss (eqs. 8-11) are added. No published code was read.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._parts_dense import Mixture, Weights, experts, square_of_variation
from ._parts_text import VOCABULARY, Block, Language, seeded, text_example

READS = "text"


class NoisyTopK(nn.Module):
    """The gate."""

    score, mixes = "softmax", "token_choice"
    loss: Tensor | None = None

    def __init__(self, hidden: int, count: int, top_k: int, noisy: bool, balance: float) -> None:
        super().__init__()
        self.top_k, self.noisy, self.balance = top_k, noisy, balance
        self.clean, self.spread = nn.Linear(hidden, count, bias=False), nn.Linear(hidden, count, bias=False)

    def forward(self, hidden: Tensor) -> Weights:
        """(T, H) → weights (T, E), zero outside the top k; and H(x) as it was drawn."""
        clean, deviation = self.clean(hidden), F.softplus(self.spread(hidden))
        drawn = clean + torch.randn_like(clean) * deviation if self.noisy else clean
        kept = drawn.topk(self.top_k, -1)
        weights = torch.zeros_like(drawn).scatter(-1, kept.indices, kept.values.softmax(-1))
        self.loss = self._loss(clean, deviation, drawn, weights) if self.training else None
        return weights, drawn

    def _loss(self, clean: Tensor, deviation: Tensor, drawn: Tensor, weights: Tensor) -> Tensor:
        importance = square_of_variation(weights.sum(0))
        if not self.noisy or self.top_k == drawn.shape[-1]:
            return self.balance * importance
        best = drawn.topk(self.top_k + 1, -1).values
        inside = weights > 0
        bound = torch.where(inside, best[:, -1:], best[:, -2:-1])  # the k-th largest of the others
        chance = torch.distributions.Normal(0.0, 1.0).cdf((clean - bound) / deviation)
        return self.balance * (importance + square_of_variation(chance.sum(0)))


def build(
    seed: int = 0,
    layers: int = 2,
    hidden: int = 32,
    count: int = 8,
    top_k: int = 2,
    noisy: bool = True,
    balance: float = 0.1,
    vocabulary: int = VOCABULARY,
) -> nn.Module:
    """A tiny language model."""

    def make() -> nn.Module:
        gates = [NoisyTopK(hidden, count, top_k, noisy, balance) for _ in range(layers)]
        blocks = [Block(hidden, ffn=Mixture(gate, experts(hidden, count))) for gate in gates]
        return Language(blocks, hidden, vocabulary, "shazeer", num_experts=count, top_k=top_k)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
