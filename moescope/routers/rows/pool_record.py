"""Decisions of experts that choose tokens, from dense (T, E) tables to records and back."""

import torch
from torch import Tensor

from ..base import Record, Site


def by_token(site: Site, chosen: Tensor, weights: Tensor, logits: Tensor, pools: int, places: int | None,
             threshold: Tensor | None) -> Record:  # fmt: skip
    """A record from (B, S, E) tensors; column e of a row is expert e, or empty."""
    number = torch.arange(site.n_experts, device=chosen.device)
    rows = chosen[..., 0].numel()
    pool = torch.arange(pools, device=chosen.device).repeat_interleave(rows // pools)
    experts, weights = torch.where(chosen, number, -1), weights.masked_fill(~chosen, 0)
    return Record(
        site, experts.flatten(0, -2), weights.flatten(0, -2), logits.flatten(0, -2), pool=pool, capacity=places,
        pool_tokens=rows // pools, threshold=threshold,
    )  # fmt: skip


def spread(experts: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(T, k) numbers and weights → (T, E) chosen and weights, each at its expert's column; -1 is nowhere."""
    there = (experts >= 0) & (experts < count)
    columns = experts.masked_fill(~there, 0).long()
    empty = torch.zeros(len(experts), count, dtype=weights.dtype, device=weights.device)
    taken = empty.scatter_add(-1, columns, there.to(weights.dtype)) > 0
    return taken, empty.scatter_add(-1, columns, weights.masked_fill(~there, 0))
