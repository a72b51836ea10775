"""Experts of a layer that is asked for."""

from typing import Any

from ..errors import InputError
from .asked import whole
from .layers import Layer


def expert_of(layer: Layer, asked: Any) -> int:
    """The expert of that number, the first with None. InputError where the layer has none."""
    number = whole("expert", asked) or 0
    if number >= layer.experts:
        raise InputError(f"{layer.label} has no expert {number}; its experts are 0 to {layer.experts - 1}")
    return number
