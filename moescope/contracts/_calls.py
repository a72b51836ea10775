"""What a module's forward takes, whoever has wrapped it (nnsight and Accelerate replace `forward` on the instance)."""

import inspect

from torch import nn


def signature(module: nn.Module) -> inspect.Signature:
    """Of the class's forward without self; an empty one where Python cannot tell."""
    try:
        found = inspect.signature(type(module).forward)
    except (TypeError, ValueError):
        return inspect.Signature()
    return found.replace(parameters=list(found.parameters.values())[1:])
