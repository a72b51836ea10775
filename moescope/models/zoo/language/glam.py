"""GLaM (Du et al. 2021, arXiv 2112.06905): a decoder whose every other feed-forward is a mixture, two experts a token.

Routing is GShard's (Lepikhin et al. 2020, arXiv 2006.16668, algorithm 1): softmax, top-2, weights divided by their sum, room
for 2 N / E tokens times a factor in each expert, groups filled in order, all first choices before the second ones, and
what has no place goes on by the residual. Left out: GShard's chance to skip the second expert, and GLaM's relative positions
and gated units. The model is closed; no code of it was found.
"""

from typing import Any

from torch import nn

from ._parts_dispatch import BufferedBlock, BufferGate
from ._parts_text import VOCABULARY, Attention, Block, Language, seeded, text_example

READS = "text"


def build(
    seed: int = 0, layers: int = 4, hidden: int = 32, count: int = 8, capacity: float = 1.0, vocabulary: int = VOCABULARY
) -> nn.Module:
    """A tiny language model; each sequence is a group. `capacity`: the factor."""

    def layer(number: int) -> nn.Module:
        if not number % 2:
            return Block(hidden)
        gate = BufferGate(hidden, count, 2, capacity, priority=False, normalized=True)
        return BufferedBlock(Attention(hidden, 4), gate, hidden, together=False)

    def make() -> nn.Module:
        return Language([layer(number) for number in range(layers)], hidden, vocabulary, "glam", num_experts=count)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
