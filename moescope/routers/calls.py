"""What a module's forward takes, whoever has wrapped it (nnsight and Accelerate replace `forward` on the instance)."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn


def signature(module: nn.Module) -> inspect.Signature:
    """Of the class's forward without self, behind adapters; an empty one where Python cannot tell."""
    return _signature(type(bare(module)).forward)


def bare(module: nn.Module) -> nn.Module:
    """The module inside adapters of PEFT, which may lie one around the other, and torch.compile's wrapper; else `module`."""
    while isinstance(inner := module._modules.get("base_layer", module._modules.get("_orig_mod")), nn.Module):
        module = inner
    return module


@lru_cache(maxsize=4096)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    try:
        found = inspect.signature(forward)
    except (TypeError, ValueError):
        return inspect.Signature()
    return found.replace(parameters=list(found.parameters.values())[1:])
