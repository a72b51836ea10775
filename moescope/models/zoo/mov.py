"""MoV, mixture of vectors (Zadouri et al. 2023, arXiv 2309.05444): (IA)³ vectors mixed by a dense softmax, for keys, values and
the inner activation of the feed-forward.

y = x ⊙ Σ_i softmax(W_r x)_i l_i (soft merging), where x is what the vectors scale: as `MoV` of the published src/mov.py
(for-ai/parameter-efficient-moe e2683fe). There keys and values are routed by head; here by projection, one router each.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_adapters import example_text, random_weights
from ._parts_mixtures import AdaptedLM, Decision, Mixture, everyone, put_on

READS = "text"
example = example_text


class MoV(Mixture):
    """Vectors on what a Linear gives (keys, values) or takes (`inner`: the feed-forward's activation)."""

    def __init__(self, base: nn.Linear, experts: int, inner: bool) -> None:
        super().__init__()
        width = base.in_features if inner else base.out_features
        self.base_layer, self.inner = base, inner
        self.router, self.vectors = nn.Linear(width, experts), nn.Parameter(1 + torch.randn(experts, width) / 4)
        self.mixture = {"experts": experts, "weight_on": "parameters", "score": "softmax"}

    def route(self, hidden: Tensor) -> Decision:  # type: ignore[override]
        """(B·S, E), of what the vectors scale."""
        logits = self.router(hidden if self.inner else self.base_layer(hidden)).flatten(0, 1)
        weights = logits.softmax(-1)
        return Decision(everyone(weights), weights, logits)

    def part(self, number: int, hidden: Tensor) -> Tensor:  # type: ignore[override]
        """The whole projection with one vector: the sum over vectors is linear in the weights."""
        vector = self.vectors[number]
        return self.base_layer(hidden * vector) if self.inner else self.base_layer(hidden) * vector  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> float:  # type: ignore[override]
        """Nothing: without vectors there is no output."""
        return 0.0

    def forward(self, hidden: Tensor) -> Tensor:  # type: ignore[override]
        """The mixed vector once, as it is published."""
        decision = self.route(hidden)
        spread = torch.zeros(len(decision.weights), len(self.vectors), device=hidden.device)
        spread = spread.scatter_add(1, decision.experts.clamp(min=0), decision.weights.masked_fill(decision.experts < 0, 0))
        vector = (spread @ self.vectors).view(*hidden.shape[:-1], -1)
        return self.base_layer(hidden * vector) if self.inner else self.base_layer(hidden) * vector  # type: ignore[no-any-return]


def build(seed: int = 0, experts: int = 6, **sizes: Any) -> nn.Module:
    """Vectors at keys, values and the input of `down_proj`."""
    torch.manual_seed(seed)
    model = AdaptedLM("mov", **sizes)
    put_on(model, r"self_attn\.[kv]_proj$", lambda base: MoV(base, experts, inner=False))
    put_on(model, r"mlp\.down_proj$", lambda base: MoV(base, experts, inner=True))
    return random_weights(model)
