"""Layer norm in flax's own order of operations, so that rounding falls the same way (flax.linen.LayerNorm)."""

import torch
from torch import nn

EPSILON = 1e-6  # flax's default


class LayerNorm(nn.Module):
    """Over the last axis, with variance as mean of squares less square of mean (`use_fast_variance`)."""

    def __init__(self, size: int, bias: bool = True) -> None:
        """`weight` (size,) begins at 1 and `bias` (size,) at 0; without `bias` nothing is added."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., size) to (..., size)."""
        mean = x.mean(-1, keepdim=True)
        variance = (x.square().mean(-1, keepdim=True) - mean.square()).clamp_min(0)
        normed = (x - mean) * (torch.rsqrt(variance + EPSILON) * self.weight)
        return normed if self.bias is None else normed + self.bias
