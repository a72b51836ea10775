"""Mixture-of-Depths (Raposo et al. 2024, arXiv 2404.02258): in every other block only the top-k tokens of a sequence take part.

Eq. 1: x' = r f(X~) + x where the scalar r = w·x is among the sequence's k largest, else x; f is attention and MLP over the
tokens taken alone. k follows from the sequence's full length, padding is never taken. While sampling the top-k would look
ahead (section 3.5), so `select` offers both of its ways: "router" (an auxiliary loss centres sigmoid(r) on one half, and
r > 0 is taken) and "predictor" (a small MLP on x without gradient says whether x will be among the k). Published code read:
astramind-ai/Mixture-of-depths, MoD/MoD.py (its strict `>` takes k - 1 tokens and x is left out of the sum; here as in eq. 1).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._parts_depth import Route, deepened, gathered, top_places
from ._parts_text import VOCABULARY, Block, Language, seeded, text_example

READS = "text"


class Depth(nn.Module):
    """A block around which tokens of a sequence may go."""

    loss: Tensor | None = None

    def __init__(self, block: nn.Module, hidden: int, capacity: float, select: str = "topk") -> None:
        super().__init__()
        self.block, self.capacity, self.select = block, capacity, select
        self.router = nn.Linear(hidden, 1, bias=False)
        if select == "predictor":
            self.predictor = nn.Sequential(nn.Linear(hidden, hidden // 2), nn.Tanh(), nn.Linear(hidden // 2, 1, bias=False))

    def route(self, hidden: Tensor, alive: Tensor | None = None) -> Route:
        """Which places (B, S, 1) take part, and with what weight."""
        scores = self.router(hidden).squeeze(-1)
        count = max(1, int(self.capacity * hidden.shape[1]))
        best = top_places(scores, alive, count)
        if self.select == "topk":
            return Route(best[..., None], scores[..., None], scores[..., None], count)
        said = scores if self.select == "router" else self.predictor(hidden.detach()).squeeze(-1)
        self.loss = F.binary_cross_entropy_with_logits(said, best.to(said)) if self.training else None
        taken = best if self.training else (said > 0 if alive is None else (said > 0) & alive)
        return Route(taken[..., None], scores[..., None], scores[..., None])

    def run(self, index: Tensor, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        """(B, K, H) what the block adds to the places taken (B, K), which see each other alone."""
        some = gathered(hidden, index)
        return self.block(some, index >= 0) - some

    def forward(self, hidden: Tensor, alive: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H); `alive` (B, S) bool: places that are no padding."""
        return deepened(hidden, self.route(hidden, alive), self.run)


class AroundLayer(Depth):
    """The same around a decoder layer of Transformers, which is handed masks and positions beside its hidden states."""

    def run(self, index: Tensor, hidden: Tensor, *_: Any, **given: Any) -> Tensor:
        """(B, K, H) what the layer adds."""
        some, size = gathered(hidden, index), hidden.shape[:2]
        given["attention_mask"] = self._seen(index, given.get("attention_mask"), hidden)
        if given.get("position_ids") is not None:
            given["position_ids"] = gathered(given["position_ids"].expand(size), index)
        if given.get("position_embeddings") is not None:
            turned = (t.expand(*size, t.shape[-1]) for t in given["position_embeddings"])
            given["position_embeddings"] = tuple(gathered(t, index) for t in turned)
        made = self.block(some, **given)
        return (made[0] if isinstance(made, tuple) else made) - some

    def _seen(self, index: Tensor, mask: Tensor | None, hidden: Tensor) -> Tensor:
        """(B, 1, K, K) what each place taken may look at: what the layer was told, of the places taken; itself in any case."""
        size = hidden.shape[1]
        seen = torch.ones(size, size, dtype=torch.bool, device=hidden.device).tril().expand(len(hidden), size, size)
        if mask is not None:
            told = mask if mask.dtype == torch.bool else mask >= 0
            seen = seen & told.reshape(-1, *told.shape[-2:])[..., :size]
        rows = gathered(seen, index)
        both = gathered(rows.transpose(1, 2), index).transpose(1, 2) & (index >= 0)[:, None]
        return (both | torch.eye(index.shape[1], dtype=torch.bool, device=index.device))[:, None]

    def forward(self, hidden_states: Tensor, *_: Any, **given: Any) -> Tensor:  # type: ignore[override]
        """A decoder layer's call. Padding is told by the last row of its mask."""
        mask = given.get("attention_mask")
        alive = None
        if mask is not None:
            last = mask[:, 0, -1, : hidden_states.shape[1]]
            alive = (last if last.dtype == torch.bool else last >= 0).expand(hidden_states.shape[:2])
        route = self.route(hidden_states, alive)
        return deepened(hidden_states, route, lambda index, state: self.run(index, state, **given))


def wrap(model: nn.Module, capacity: float = 0.5, every: int = 2, seed: int = 0) -> nn.Module:
    """Put every `every`-th decoder layer of a model of Transformers (`model.model.layers`) behind a depth router, in place."""
    inner: Any = model
    layers, hidden = inner.model.layers, inner.config.hidden_size
    for number in range(every - 1, len(layers), every):
        layers[number] = seeded(lambda layer=layers[number]: AroundLayer(layer, hidden, capacity), seed + number)  # type: ignore[misc]
    inner.config.use_cache = False
    return model


def build(
    seed: int = 0, layers: int = 4, hidden: int = 32, capacity: float = 0.25, select: str = "topk", vocabulary: int = VOCABULARY
) -> nn.Module:
    """A tiny language model; every other layer is behind a router. `select`: topk, router or predictor."""

    def make() -> nn.Module:
        blocks = (Block(hidden) for _ in range(layers))
        every = [Depth(b, hidden, capacity, select) if number % 2 else b for number, b in enumerate(blocks)]
        return Language(every, hidden, vocabulary, "mod", capacity=capacity, select=select)

    return seeded(make, seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids."""
    return text_example(model.config.vocab_size, batch, places, seed)
