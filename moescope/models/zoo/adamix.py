"""AdaMix (Wang et al. 2022, arXiv 2205.12410): several copies of a bottleneck adapter, one at random in training, all averaged
after.

x + U f(D x): in training D and U are each drawn anew for every batch; at inference the weights and biases of all
copies are averaged: as `MixtureSoup` and `ExpertSoup` of the published expert_soup.py (microsoft/AdaMix
f3b6e99), inference level 3 with equal scores. The consistency loss between two draws belongs to training. A decision is one of
the whole batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._parts_adapters import example_text, random_weights
from ._parts_mixtures import AdaptedLM, Decision, Mixture, everyone, put_on

READS = "text"
example = example_text


class Soup(Mixture):
    """Copies of one projection."""

    def __init__(self, into: int, out: int, experts: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(nn.Linear(into, out) for _ in range(experts))
        self.mixture = {"experts": experts, "unit": "batch", "weight_on": "parameters"}
        self.mixture["rule"] = {"training": "one at random for each batch"}

    def route(self, hidden: Tensor) -> Decision:  # type: ignore[override]
        """(1, 1) in training, (1, E) after."""
        count = len(self.adapters)
        if self.training:
            drawn = torch.randint(count, (1, 1), device=hidden.device)
            return Decision(drawn, torch.ones(1, 1, device=hidden.device))
        weights = torch.full((1, count), 1 / count, device=hidden.device)
        return Decision(everyone(weights), weights)

    def rest(self, hidden: Tensor) -> float:  # type: ignore[override]
        """Nothing stands beside."""
        return 0.0

    def forward(self, hidden: Tensor) -> Tensor:  # type: ignore[override]
        """One projection with the mixed weights."""
        decision = self.route(hidden)
        pairs = [(e, w) for e, w in zip(decision.experts[0].tolist(), decision.weights[0]) if e >= 0]
        copies: Any = self.adapters
        weight = sum((w * copies[e].weight for e, w in pairs), torch.zeros_like(copies[0].weight))
        bias = sum((w * copies[e].bias for e, w in pairs), torch.zeros_like(copies[0].bias))
        return functional.linear(hidden, weight, bias)


class Adapted(nn.Module):
    """A feed-forward with the adapter behind it."""

    def __init__(self, base: Any, experts: int) -> None:
        super().__init__()
        hidden = base.gate_proj.in_features
        self.base_layer, self.down, self.up = base, Soup(hidden, 8, experts), Soup(8, hidden, experts)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, H)"""
        made = self.base_layer(hidden)
        return made + self.up(functional.gelu(self.down(made)))  # type: ignore[no-any-return]


def build(seed: int = 0, experts: int = 4, **sizes: Any) -> nn.Module:
    """Adapters behind every feed-forward."""
    torch.manual_seed(seed)
    model = AdaptedLM("adamix", **sizes)
    put_on(model, r"layers\.\d+\.mlp$", lambda base: Adapted(base, experts))
    return random_weights(model)
