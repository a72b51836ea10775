"""EvoMoE (Nie et al. 2021, arXiv 2112.14397): a gate that begins dense and is annealed until one expert is left.

Dense to sparse: weights = gumbel_softmax(log softmax(W x), τ), and those above a threshold (0.02) run, not normalized again; τ
falls with the steps; at the end the largest softmax weight alone. While τ > 0 the noise is drawn in every forward, in
evaluation too. Published code read: codecaution/EvoMoE, fairseq/modules/moe/topkgate.py (`topkgating`, soft training; its
evaluation goes to `top1gating` unless `dense_validate` is set) and top1gate.py for the end. Not followed: the schedule of τ,
which lies in its trainer (here exponential), and the diversification of one expert into many by masks before it.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ._parts_dense import Mixture, Weights, experts
from ._parts_text import VOCABULARY, Block, Language, seeded, text_example

READS = "text"


class Annealed(nn.Module):
    """The gate; `temperature` 0 is its last stage."""

    score = "softmax"

    def __init__(self, hidden: int, count: int, temperature: float, threshold: float) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, count, bias=False)
        self.temperature, self.threshold = temperature, threshold

    @property
    def mixes(self) -> str:
        """dense while there is a temperature, then token_choice."""
        return "dense" if self.temperature else "token_choice"

    @property
    def top_k(self) -> int:
        """Of the last stage."""
        return 1

    def forward(self, hidden: Tensor) -> Weights:
        """(T, H) → weights (T, E), exactly 0 for what does not run, and the logits without noise."""
        logits = self.linear(hidden)
        if self.temperature:
            weights = F.gumbel_softmax(logits.log_softmax(-1), tau=self.temperature)
            return weights.masked_fill(weights <= self.threshold, 0), logits
        best = logits.softmax(-1).max(-1, keepdim=True)
        return logits.new_zeros(logits.shape).scatter(-1, best.indices, best.values), logits


def anneal(model: nn.Module, step: int, steps: int, first: float = 2.0, last: float = 0.1) -> float:
    """Set the temperature for a training step: from `first` to `last` over `steps`, then 0; gives it."""
    now = first * (last / first) ** (step / steps) if step < steps else 0.0
    for module in model.modules():
        if isinstance(module, Annealed):
            module.temperature = now
    return now


def build(
    seed: int = 0,
    layers: int = 2,
    hidden: int = 32,
    count: int = 8,
    temperature: float = 0.5,
    threshold: float = 0.02,
    vocabulary: int = VOCABULARY,
) -> nn.Module:
    """A tiny language model. `temperature` 0: the last stage, one expert per token."""

    def make() -> nn.Module:
        gates = [Annealed(hidden, count, temperature, threshold) for _ in range(layers)]
        blocks = [Block(hidden, ffn=Mixture(gate, experts(hidden, count))) for gate in gates]
        return Language(blocks, hidden, vocabulary, "evomoe", num_experts=count)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
