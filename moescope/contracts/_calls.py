"""What a module's forward takes, whoever has wrapped it (nnsight and Accelerate replace `forward` on the instance)."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn


def signature(module: nn.Module) -> inspect.Signature:
    """Of the class's forward without self; an empty one where Python cannot tell."""
    return _signature(type(module).forward)


@lru_cache(maxsize=4096)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    try:
        found = inspect.signature(forward)
    except (TypeError, ValueError):
        return inspect.Signature()
    return found.replace(parameters=list(found.parameters.values())[1:])
