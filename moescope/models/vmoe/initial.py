"""Flax's initial distributions, so that an untrained V-MoE begins as the authors' does (jax.nn.initializers)."""

import math

import torch
from torch import nn

_TRUNCATED_STD = 0.87962566103423978  # of a standard normal cut at two standard deviations


def lecun_normal_(tensor: torch.Tensor, fan_in: int) -> torch.Tensor:
    """Variance 1 / fan_in, cut at two standard deviations."""
    std = math.sqrt(1 / fan_in) / _TRUNCATED_STD
    return nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


def xavier_uniform_(tensor: torch.Tensor, fan_in: int, fan_out: int) -> torch.Tensor:
    """Uniform with variance 2 / (fan_in + fan_out); leading axes are separate matrices."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return nn.init.uniform_(tensor, -limit, limit)


def normal_(tensor: torch.Tensor, std: float) -> torch.Tensor:
    """N(0, std); a meta tensor stays as it is, because torch would first load its compiler for it."""
    return tensor if tensor.is_meta else nn.init.normal_(tensor, std=std)


def dense(inputs: int, outputs: int, bias_std: float = 0.0) -> nn.Linear:
    """A linear layer with a Xavier kernel and a bias of N(0, bias_std), zeros if that is 0."""
    layer = nn.Linear(inputs, outputs)
    xavier_uniform_(layer.weight, inputs, outputs)
    normal_(layer.bias, bias_std) if bias_std else nn.init.zeros_(layer.bias)
    return layer
