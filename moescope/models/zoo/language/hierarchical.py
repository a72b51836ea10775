"""Hierarchical mixtures of experts (Jordan and Jacobs 1994): a tree of softmax gates, whose leaves are experts.

y = Σ_i g_i Σ_j g_j|i y_ij (their eqs. 1-5, two levels; here any depth): a leaf's weight is the product of the gates on its
path. Each feed-forward of a small language model is such a tree. No published code is followed: the rule is these formulas.
"""

from typing import Any

from torch import nn

from ._parts_dense import Mixture, Softmax
from ._parts_text import VOCABULARY, Block, Language, feed_forward, seeded, text_example

READS = "text"


def tree(hidden: int, depth: int, branches: int) -> nn.Module:
    """A node with `branches` children, or an expert where depth is 0."""
    if not depth:
        return feed_forward(hidden, hidden)
    return Mixture(Softmax(hidden, branches, "tree"), [tree(hidden, depth - 1, branches) for _ in range(branches)])


def build(
    seed: int = 0, layers: int = 2, hidden: int = 32, depth: int = 2, branches: int = 2, vocabulary: int = VOCABULARY
) -> nn.Module:
    """A tiny language model with a tree of `branches` ** `depth` experts in every layer."""

    def make() -> nn.Module:
        blocks = [Block(hidden, ffn=tree(hidden, depth, branches)) for _ in range(layers)]
        return Language(blocks, hidden, vocabulary, "hierarchical", depth=depth, branches=branches)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
