"""Routers that return logits alone, the block decides (DBRX): the decision is read where it enters `experts`."""

from typing import Any

import torch
from torch import nn

from ..routers.calls import bare
from ..routers.reading.experts_call import ExpertsCall, Said, child_router


class LogitsOnly(ExpertsCall):
    """logits (..., E) from the router, `experts(hidden, indices (T, k), weights (T, k))` from the block."""

    name = "logits_only"
    sums_per_token = True

    def router_of(self, block: nn.Module) -> nn.Module | None:
        """A child router that leaves the decision to its block."""
        router = child_router(block)
        return router if router is not None and decides_outside(block, router) else None

    def said(self, output: Any) -> Said:
        """The logits, where the output is one tensor."""
        return (output if torch.is_tensor(output) else None), None


def decides_outside(block: nn.Module, router: nn.Module) -> bool:
    """Whether a block decides itself: its router is a plain Linear, or it has DBRX's method for it."""
    return type(bare(router)) is nn.Linear or hasattr(block, "route_tokens_to_experts")


contract = LogitsOnly()
