"""Capacity and buffer places: who gets into an expert (vmoe/moe.py; paper arXiv:2106.05974, sections 2.4 and 4)."""

import math

import torch

from ...errors import InputError


def expert_capacity(choices: int, experts: int, factor: float, ceil_or_round: str = "ceil", multiple_of: int | None = 4) -> int:
    """C: places of one expert in one group, `choices * factor / experts`, rounded up to a multiple of `multiple_of`.

    `choices` is S * k where tokens choose and S where experts choose. 'round' is Python's, which rounds halves to even.
    InputError where the first rounding leaves no place. Source: compute_capacity in vmoe/moe.py.
    """
    share = choices * factor / experts
    places = math.ceil(share) if ceil_or_round == "ceil" else round(share)
    if places < 1:
        raise InputError(
            f"capacity factor {factor} leaves {share:.3f} places per expert for {choices} choices of {experts} "
            f"experts: at least one is needed, so raise capacity_factor or group_size."
        )
    return places + -places % multiple_of if multiple_of and multiple_of > 0 else places


def best_first(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of the last axis and where they are; among equals the lower position comes first."""
    values, where = torch.sort(scores, dim=-1, descending=True, stable=True)
    return values[..., :count], where[..., :count]


def buffer_places(indices: torch.Tensor, priority: torch.Tensor | None, experts: int) -> torch.Tensor:
    """Place (G, S, k) of every choice in its expert's buffer, counted past the capacity too.

    All tokens' first choices come before all second choices, and so on. Within one rank tokens come in their order, or,
    with batch prioritized routing, by falling `priority` (G, S). `indices` is (G, S, k).
    """
    if priority is None:
        return _running_count(indices, experts)
    order = torch.argsort(-priority, dim=1, stable=True).unsqueeze(-1).expand_as(indices)
    places = _running_count(indices.gather(1, order), experts)
    return torch.empty_like(places).scatter_(1, order, places)


def _running_count(indices: torch.Tensor, experts: int) -> torch.Tensor:
    groups, size, k = indices.shape
    queue = indices.transpose(1, 2).reshape(groups, k * size, 1)
    chosen = torch.zeros(groups, k * size, experts, dtype=torch.int64, device=indices.device).scatter_(2, queue, 1)
    places = chosen.cumsum(1).gather(2, queue) - 1
    return places.view(groups, k, size).transpose(1, 2).contiguous()
