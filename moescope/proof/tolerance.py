"""How far a recomputed output may be from the real one: what rounding explains, and no more.

By the type of the output, whatever the weights are quantized by: the methods that run here round every row by itself,
so that one expert alone gives what it gives among others (docs/quantized.md has the measurements). A method that rounds by what
else is in a call misses this by far, and is refused with the difference.
"""

import torch

from ..contracts import Call

BY_TYPE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
OTHER = 1e-3


def tolerance(call: Call) -> float:
    """The share of the largest value by which a call's output may be missed."""
    return BY_TYPE.get(call.output.dtype, OTHER)


def allowed(call: Call) -> float:
    """The largest difference that rounding explains: a share of the largest value, and near zero the type's own steps.

    Below its smallest normal number a type has steps of one size, and each of the k experts is rounded to them when it is
    made, weighed and summed up, there and here.
    """
    numbers = torch.finfo(call.output.dtype)
    steps = 6 * call.record.experts.shape[-1] * numbers.smallest_normal * numbers.eps
    return tolerance(call) * (float(call.output.float().abs().max()) or 1.0) + steps
