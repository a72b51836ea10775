"""Rows in which experts take tokens, and how another decision is executed in the same rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..reading.stash import ratio


@dataclass(frozen=True)
class Slots:
    """(N,) each: the expert of a row, its token, and its weight."""

    expert: Tensor
    token: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Fitted:
    """Another decision in the same rows: expert (N,), what their outputs are multiplied by (N,), their order by expert (N,);
    and what found no row: expert, token, weight (M,) each."""

    expert: Tensor
    ratio: Tensor
    order: Tensor
    extra_expert: Tensor
    extra_token: Tensor
    extra_weight: Tensor


def fitted(slots: Slots, taken: Tensor, weights: Tensor) -> Fitted:
    """Fit a decision, (T, E) `taken` and `weights`, into rows: a row that is still wanted stays, others change theirs."""
    stays = taken[slots.token, slots.expert]
    left = taken.clone()
    left[slots.token, slots.expert] = False
    token, expert = left.nonzero(as_tuple=True)
    free = (~stays).nonzero().flatten()
    free = free[slots.token[free].argsort(stable=True)]
    table = torch.full(taken.shape, -1, device=taken.device)  # (token, how many of its free rows before) → row
    table[slots.token[free], _rank(slots.token[free])] = free
    row = table[token, _rank(token)]
    found = row >= 0
    expert_of, want = slots.expert.clone(), torch.where(stays, weights[slots.token, slots.expert], 0)
    expert_of[row[found]] = expert[found]
    want[row[found]] = weights[token[found], expert[found]]
    rest = token[~found], expert[~found]
    return Fitted(expert_of, ratio(want, slots.weight), expert_of.argsort(stable=True), rest[1], rest[0], weights[rest])


def _rank(ascending: Tensor) -> Tensor:
    """(N,) how many equal numbers stand before each, in a sorted tensor."""
    return torch.arange(len(ascending), device=ascending.device) - torch.searchsorted(ascending, ascending)
