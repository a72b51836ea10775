"""What the experts of a model were called with in one forward, by hooks of our own and nobody else's."""

from typing import Any

import torch
from small import ids
from torch import Tensor, nn

Row = tuple[int, int, int, int, float]


def experts_called(model: nn.Module, inputs: Any = None) -> list[Row]:
    """(router, token, slot, expert, weight) of every assignment, in the order of the layers."""
    seen: list[tuple[Tensor, Tensor]] = []
    blocks: Any = [m.experts for m in model.modules() if isinstance(getattr(m, "experts", None), nn.Module)]
    blocks = [getattr(b, "base_layer", b) for b in blocks]
    handles = [b.register_forward_pre_hook(lambda _, args: seen.append((args[1].clone(), args[2].clone()))) for b in blocks]
    with torch.no_grad():
        model(input_ids=ids()) if inputs is None else model(**inputs)
    for handle in handles:
        handle.remove()
    return [
        (router, token, slot, int(expert), float(weight))
        for router, call in enumerate(seen)
        for token, row in enumerate(zip(*call))
        for slot, (expert, weight) in enumerate(zip(*row))
    ]
