"""Layers whose decision shows in nothing that they return: what an edit wrote is remembered beside the output it made."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Written:
    """The decision that made an output, and what the layer itself had returned."""

    experts: Tensor
    weights: Tensor
    own: Any


_written = WeakIdKeyDictionary()


def remember(output: Tensor, experts: Tensor, weights: Tensor, own: Any) -> None:
    """`output` was made by these experts and weights, in place of the layer's `own`; known as long as it lives."""
    _written[output] = Written(experts, weights, own)


def written(output: Tensor) -> Written | None:
    """What made this very tensor, if an edit did."""
    found: Written | None = _written.get(output)
    return found
