"""Mixture-of-Recursions (Bae et al. 2025, arXiv 2507.10524): one shared block is run several times, more often for some tokens.

Between an own first and last block (the paper's middle cycle) the shared block recurs, and the tokens of a recursion attend to
each other alone (recursion-wise caching). `choice="expert"`: recursion r has a router of its own that keeps the top-k of the
tokens that came through r - 1, k shrinking from all to 1/N of the sequence; x' = g f(x) + x with g = alpha sigmoid(w·x).
`choice="token"`: one router, argmax of its softmax (`score="sigmoid"`: alpha sigmoid) over depths, plus a bias that balances
loads without a loss; a token recurs so often, and x' = g f(f(...f(x))) + x. Published code read: model/mor_model/
expert_choice_router.py and token_choice_router.py (steps 1-5 and the loop over blocks) in sudeshmu/mixture_of_recursions, a
mirror of the authors' repository; as there f holds the block's own residual, and the bias chooses but does not weigh.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_depth import Route, deepened, gathered, top_places
from ._parts_text import VOCABULARY, Block, Language, seeded, text_example

READS = "text"


class Recursion(nn.Module):
    """One recursion by expert choice: the block on the best of the tokens that are still there."""

    def __init__(self, block: nn.Module, hidden: int, capacity: float, alpha: float) -> None:
        super().__init__()
        self.block, self.capacity, self.alpha = block, capacity, alpha
        self.router = nn.Linear(hidden, 1, bias=False)

    def route(self, hidden: Tensor, alive: Tensor | None = None) -> Route:
        """Of the places alive (B, S), those that go on, (B, S, 1)."""
        logits = self.router(hidden)
        weights = logits.sigmoid() * self.alpha
        count = max(1, int(self.capacity * hidden.shape[1] + 1e-6))
        return Route(top_places(weights.squeeze(-1), alive, count)[..., None], weights, logits, count)

    def run(self, index: Tensor, hidden: Tensor, *_: Any) -> Tensor:
        """(B, K, H) the block on the places taken."""
        return self.block(gathered(hidden, index), index >= 0)

    def forward(self, hidden: Tensor, alive: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, S, H), and which places (B, S) the next recursion may take."""
        route = self.route(hidden, alive)
        return deepened(hidden, route, self.run), route.chosen[..., 0]


class Recursions(nn.Module):
    """All recursions, each over what came through the one before."""

    def __init__(self, block: nn.Module, hidden: int, count: int, alpha: float) -> None:
        super().__init__()
        self.recursions = nn.ModuleList(Recursion(block, hidden, (count - r) / count, alpha) for r in range(count))

    def forward(self, hidden: Tensor, alive: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H)"""
        for recursion in self.recursions:
            hidden, alive = recursion(hidden, alive)
        return hidden


class ChosenDepth(nn.Module):
    """All recursions by token choice: each token says at the first how often it recurs."""

    router_bias: Tensor

    def __init__(self, block: nn.Module, hidden: int, count: int, alpha: float, score: str) -> None:
        super().__init__()
        self.block, self.count, self.alpha, self.score = block, count, alpha, score
        self.router = nn.Linear(hidden, count, bias=False)
        self.register_buffer("router_bias", torch.zeros(count))

    def route(self, hidden: Tensor, alive: Tensor | None = None) -> Route:
        """Runs 0..d of every place, (B, S, N); the last with the weight of its depth, those before with 1."""
        logits = self.router(hidden)
        scores = (logits.sigmoid() if self.score == "sigmoid" else logits.softmax(-1)) * self.alpha
        depth = (scores + self.router_bias).argmax(-1, keepdim=True)
        runs = torch.arange(self.count, device=hidden.device)
        chosen = runs <= depth
        return Route(chosen if alive is None else chosen & alive[..., None], torch.where(runs == depth, scores, 1.0), logits)

    def run(self, index: Tensor, hidden: Tensor, *_: Any) -> Tensor:
        """(B, K, H) the block on the places taken."""
        return self.block(gathered(hidden, index), index >= 0)

    def forward(self, hidden: Tensor, alive: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H)"""
        return deepened(hidden, self.route(hidden, alive), self.run)


def build(
    seed: int = 0,
    recursions: int = 3,
    hidden: int = 32,
    choice: str = "expert",
    score: str = "softmax",
    alpha: float = 0.0,
    vocabulary: int = VOCABULARY,
) -> nn.Module:
    """A tiny language model. `choice`: expert or token. `alpha`: of the weights; 0 for 1 (softmax) or 0.5 (sigmoid)."""

    def make() -> nn.Module:
        shared = Block(hidden)
        if choice == "token":
            middle: nn.Module = ChosenDepth(shared, hidden, recursions, alpha or (0.5 if score == "sigmoid" else 1.0), score)
        else:
            middle = Recursions(shared, hidden, recursions, alpha or 0.5)
        return Language([Block(hidden), middle, Block(hidden)], hidden, vocabulary, "mor", recursions=recursions, choice=choice)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
