"""Numbers that are no routed experts: identities (LongCat) and the class that skips the layer (ZAYA).

An identity has a number from E on in the decision as executed. ZAYA hands its experts number 0 with weight 0 for a token that
chose to skip, which would read as expert 0: it is recorded as number E, and mapped back where a decision is written.
"""

import torch
from torch import Tensor, nn

from ..base import Site


def roles(router: nn.Module, experts: nn.Module, n_experts: int) -> dict[int, str]:
    """{number: role} of what a router can choose beside its `n_experts` routed experts."""
    if getattr(router, "num_router_classes", None) == n_experts + 1:
        return {n_experts: "skip"}
    return {n_experts + i: "identity" for i in range(getattr(experts, "zero_expert_num", None) or 0)}


def skip_to_number(site: Site, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(T, k) experts and weights as executed → as recorded."""
    if not skips(site):
        return experts, weights
    return torch.where((experts == 0) & (weights == 0), site.n_experts, experts), weights


def number_to_skip(site: Site, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(T, k) experts and weights as recorded → as executed."""
    if not skips(site):
        return experts, weights
    skipped = experts >= site.n_experts
    return experts.masked_fill(skipped, 0), weights.masked_fill(skipped, 0)


def skips(site: Site) -> bool:
    """Whether the router may choose to skip the layer."""
    return site.roles.get(site.n_experts) == "skip"
