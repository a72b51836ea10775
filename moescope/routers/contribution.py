"""What one expert adds: a block's routed output, taken apart expert by expert from what was executed."""

from dataclasses import replace

import torch
from torch import Tensor

from .base import Call


def contribution(call: Call, expert: int) -> Tensor:
    """(T, H) weight × output of one expert in a call; 0 where it did not run. All of them and `always` sum to the output."""
    record = call.record
    alive = _ran(call, expert)
    mine = replace(record, weights=record.weights.masked_fill(~alive, 0))
    made = record.site.contract.recompute(record.site, call.inputs, mine).float().flatten(0, -2)
    return made - always(call)


def always(call: Call) -> Tensor | float:
    """(T, H) what a block's output holds whoever runs (JetMoE's bias, Doge's dense part): counted to no expert. Mostly 0."""
    if not call.record.site.contract.constant_output:
        return 0.0
    none = replace(call.record, weights=torch.zeros_like(call.record.weights))
    return call.record.site.contract.recompute(call.record.site, call.inputs, none).float().flatten(0, -2)


def runs(call: Call, expert: int) -> Tensor:
    """(T,) bool: tokens that ran the expert."""
    return _ran(call, expert).any(-1)


def _ran(call: Call, expert: int) -> Tensor:
    """(T, k) bool: places of the expert that were not dropped, and acted where only one of them does."""
    return (call.record.experts == expert) & call.record.ran
