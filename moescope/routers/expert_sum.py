"""The sum that nearly every routed layer is: each expert on the tokens that have it, times its weight."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from .base import Record, Site


def expert_sum(hidden: Tensor, record: Record, expert: Callable[[int, Tensor], Tensor]) -> Tensor:
    """(T, H) float32 sum over what ran of weight × `expert(number, its tokens (n, H))`; what was dropped did not run."""
    alive = record.ran
    total: Tensor | None = None
    for number in record.experts[alive].unique().tolist():
        token, slot = ((record.experts == number) & alive).nonzero(as_tuple=True)
        made = (expert(number, hidden[token]) * record.weights[token, slot, None]).float()
        total = made.new_zeros(len(hidden), made.shape[-1]) if total is None else total
        total.index_add_(0, token, made)
    return torch.zeros_like(hidden, dtype=torch.float32) if total is None else total


def watch_block(site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
    """Give `keep` what a block takes first and what it returns (first), as (T, H) rows."""

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        hidden = (*args, *kwargs.values())[0]
        made = output[0] if isinstance(output, tuple) else output
        keep((hidden.detach().reshape(-1, hidden.shape[-1]),), made.detach().reshape(-1, made.shape[-1]))

    return [hooks.after(site.block, after, kwargs=True, first=True)]
