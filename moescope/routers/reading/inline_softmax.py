"""Gates whose softmax stands in the middle of a layer's forward: logits that bring along what their softmax is to be.

A layer that asks `softmax` of what its gate returned can be given any weights this way, also some that no logits have.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_SOFTMAX = {functional.softmax, torch.softmax, Tensor.softmax}


class Decided(Tensor):
    """Logits (..., E) whose softmax over the last axis is `weights` (..., E); anything else is done with plain logits."""

    weights: Tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args[0] if args else None
        if func in _SOFTMAX and isinstance(given, cls):
            return given.weights
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def decided(logits: Tensor, weights: Tensor) -> Tensor:
    """`logits` as they are where `weights` are what softmax makes of them, else with those weights."""
    weights = weights.view_as(logits)
    if torch.equal(said(logits), weights):
        return logits
    changed = logits.detach().as_subclass(Decided)
    changed.weights = weights
    return changed


def said(logits: Tensor) -> Tensor:
    """(..., E) the weights that a layer's softmax will give."""
    return logits.weights if isinstance(logits, Decided) else logits.softmax(-1)
