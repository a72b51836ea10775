"""Decisions as two tensors over (group, token, expert, place in the expert's buffer), read as records and written back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base import Record, Site


@dataclass(frozen=True)
class Placement:
    """Which expert has a place for which token: (B N, E) each, and what a group holds."""

    there: Tensor  # bool
    weights: Tensor  # 0 where there is no place
    places: Tensor  # in the expert's buffer
    tokens: int  # of a group, N
    capacity: int  # of an expert in a group, C

    @classmethod
    def of(cls, dispatch: Tensor, combine: Tensor) -> "Placement":
        """From (B, N, E, C) each."""
        there = dispatch.detach().sum(-1) > 0.5
        weights, places = combine.detach().sum(-1).masked_fill(~there, 0), dispatch.detach().argmax(-1)
        flat = [t.flatten(0, 1) for t in (there, weights, places)]
        return cls(flat[0], flat[1], flat[2], dispatch.shape[1], dispatch.shape[3])


def record(site: Site, found: Placement, wanted: Tensor | None, logits: Tensor | None, top_k: int) -> Record:
    """(T, k) of what has a place, largest weight first, or in the order of `wanted` (T, k); what has none is dropped.

    `wanted` (T, 1) is a first choice alone: where it has no place, it stands in the last column.
    """
    experts = _placed(found, top_k) if wanted is None or wanted.shape[1] < top_k else wanted
    if wanted is not None and wanted is not experts:
        lost = ~found.there.gather(-1, wanted)[:, 0]
        experts[:, -1] = torch.where(lost & (experts[:, -1] < 0), wanted[:, 0], experts[:, -1])
    at = experts.clamp(min=0)
    there = found.there.gather(-1, at) & (experts >= 0)
    buffer = torch.where(there, found.places.gather(-1, at), found.capacity)
    pool = torch.arange(len(at), device=at.device) // found.tokens
    return Record(
        site, experts, found.weights.gather(-1, at).masked_fill(~there, 0), logits, dropped=(experts >= 0) & ~there,
        buffer=buffer, pool=pool, capacity=found.capacity, pool_tokens=found.tokens,
    )  # fmt: skip


def _placed(found: Placement, top_k: int) -> Tensor:
    best = torch.where(found.there, found.weights.float(), -1.0).topk(top_k, dim=-1)
    return best.indices.masked_fill(best.values < 0, -1)


def top_k(gate: Any) -> int:
    """How many experts such a gate gives a token at most."""
    return int(getattr(gate, "top_n", getattr(gate, "top_k", 2)))


def placed_anew(dispatch: Tensor, combine: Tensor, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors for other (experts, weights), (B N, k): who keeps its expert keeps its place, others come behind the last.

    A choice of weight 0 that had no place before gets none.
    """
    batch, tokens, count, capacity = dispatch.shape
    found = Placement.of(dispatch, combine)
    slot = torch.where(experts >= 0, experts, count).long()
    given = weights.new_zeros(len(slot), count + 1).scatter_add(1, slot, weights)[:, :count]
    named = torch.zeros(len(slot), count + 1, dtype=torch.bool, device=slot.device).scatter(1, slot, True)[:, :count]
    alive = named & (found.there | (given != 0))
    new = (alive & ~found.there).view(batch, tokens, count)
    places = torch.where(new, capacity + new.cumsum(1) - 1, found.places.view(batch, tokens, count))
    size = capacity + int(new.sum(1).max())
    hot = nn.functional.one_hot(places, size).bool() & alive.view(batch, tokens, count, 1)
    before = nn.functional.pad(dispatch, (0, size - capacity))  # 1 but for rounding: w is added and taken off for its gradient
    ones = torch.where(before > 0.5, before, torch.ones_like(before))
    return hot * ones, hot * given.view(batch, tokens, count, 1).to(combine.dtype)


def one_expert(experts: nn.Module | None, number: int | tuple[int, ...], hidden: Tensor) -> Tensor:
    """(n, H) what one expert makes of tokens: a module of its own, or a slice of weights that are stacked."""
    assert experts is not None
    inner = experts._modules.get("experts", experts)
    if isinstance(inner, nn.ModuleList):
        assert isinstance(number, int)
        made: Tensor = inner[number].forward(hidden)
        return made
    place = (number,) if isinstance(number, int) else number
    stacked: Any = next(p for p in experts.parameters(recurse=False))
    whole: Tensor = experts.forward(hidden.expand(*stacked.shape[: len(place)], *hidden.shape))
    return whole[place]
