"""Routers that return `(logits, weights, indices[, ...])`: most of Transformers 5 (Mixtral, DeepSeek, Qwen, OLMoE, ...)."""

from typing import Any

import torch
from torch import nn

from ..routers.reading.experts_call import ExpertsCall, Said, child_router
from .logits_only import decides_outside


class Triple(ExpertsCall):
    """(logits (T, E), weights (T, k), indices (T, k)) from the router."""

    name = "triple"
    sums_per_token = True

    def router_of(self, block: nn.Module) -> nn.Module | None:
        """A child router that decides itself."""
        router = child_router(block)
        return None if router is None or decides_outside(block, router) else router

    def said(self, output: Any) -> Said:
        """Logits first, then weights, then indices; None for what is not there. One tensor alone is taken for logits."""
        if not (isinstance(output, tuple) and len(output) >= 3):
            return (output, None) if torch.is_tensor(output) and output.is_floating_point() else (None, None)
        logits, weights, experts = output[:3]
        if not torch.is_tensor(experts) or experts.is_floating_point() or experts.shape != weights.shape:
            return None, None
        if experts.dim() != 2:
            experts, weights = experts.reshape(-1, experts.shape[-1]), weights.reshape(-1, weights.shape[-1])
        return logits, (experts, weights)


contract = Triple()
