"""Adaptive mixtures of local experts (Jacobs, Jordan, Nowlan, Hinton 1991): every expert runs, a softmax gate weighs them all.

y = Σ_i p_i o_i with p = softmax(W x) (their eq. 1.2 and figure 1). Here each feed-forward of a small language model is such a
mixture, and the gate sees what the experts see. Their competitive error (eq. 1.3) is one for regression by the whole network;
this model is trained by the next token. No published code is followed: the rule is the two formulas.
"""

from typing import Any

from torch import nn

from ._parts_dense import Mixture, Softmax, experts
from ._parts_text import VOCABULARY, Block, Language, seeded, text_example

READS = "text"


def build(seed: int = 0, layers: int = 2, hidden: int = 32, count: int = 4, vocabulary: int = VOCABULARY) -> nn.Module:
    """A tiny language model with `count` experts in every layer."""

    def make() -> nn.Module:
        blocks = [Block(hidden, ffn=Mixture(Softmax(hidden, count), experts(hidden, count))) for _ in range(layers)]
        return Language(blocks, hidden, vocabulary, "moe1991", num_experts=count)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
