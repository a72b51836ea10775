"""The audit itself, from masses of a router's experts in each domain (arXiv 2601.03425; code: The-FinAI/CommitteeAudit)."""

from math import ceil
from typing import Any

import numpy as np

from ...statistics import Array


def members(mass: Array, budget: int, presence: float) -> tuple[Array, Array, Array]:
    """(committee in order of mean rank, its mean ranks, variances of ranks) from mass (domains, experts).

    In each domain the `budget` experts of most mass have ranks 1 ... budget, all others budget + 1. Candidates lead in at least
    `presence` of the domains (or, where none does, in as many as any does); the committee is those of them that no other beats
    in both mean and variance of rank.
    """
    domains, experts = mass.shape
    order = np.argsort(-mass, axis=1, kind="stable")[:, :budget]
    ranks = np.full((domains, experts), budget + 1.0)
    leads = np.take_along_axis(mass, order, 1) > 0
    np.put_along_axis(ranks, order, np.where(leads, np.arange(1.0, order.shape[1] + 1), budget + 1.0), axis=1)
    present = (ranks <= budget).sum(0)
    enough = present >= ceil(domains * presence - 1e-9)
    (candidates,) = np.nonzero(enough if enough.any() else (present == present.max()) & (present > 0))
    mean, spread = ranks.mean(0), ranks.var(0)
    front: list[int] = []
    least = np.inf
    for at in candidates[np.lexsort((candidates, spread[candidates], mean[candidates]))]:
        same = bool(front) and (mean[at], spread[at]) == (mean[front[-1]], spread[front[-1]])
        if spread[at] < least or same:
            front.append(int(at))
            least = spread[at]
    chosen = np.array(front, dtype=int)
    return chosen, mean[chosen], spread[chosen]


def coverage(mass: Array, chosen: Array, budget: int | None = None) -> Any:
    """Share of the mass that `chosen` take, mean over domains; mass (..., domains, experts).

    Each domain counts alike. `budget`: of the mass of the `budget` leading experts of each domain, and only where a chosen one
    leads, as the released code has it (the sum over domains of the one, over that of the other).
    """
    share = mass / np.maximum(mass.sum(-1, keepdims=True), 1e-300)
    if budget is None:
        return share[..., chosen].sum(-1).mean(-1)
    least = -np.partition(-share, budget - 1, axis=-1)[..., budget - 1 : budget]
    leading = np.where(share >= np.maximum(least, 1e-300), share, 0.0)
    return leading[..., chosen].sum((-1, -2)) / np.maximum(leading.sum((-1, -2)), 1e-300)


def heaviest(mass: Array, size: int) -> Array:
    """The `size` experts of largest share, mean over domains, of mass (domains, experts)."""
    share = mass / np.maximum(mass.sum(-1, keepdims=True), 1e-300)
    return np.argsort(-share.mean(0), kind="stable")[:size]


def leaders(mass: Array, top_p: float) -> Array:
    """(..., experts) bool: the fewest experts of most mass whose shares reach `top_p`."""
    order = np.argsort(-mass, axis=-1, kind="stable")
    shares = np.take_along_axis(mass, order, -1) / np.maximum(mass.sum(-1, keepdims=True), 1e-300)
    before = np.cumsum(shares, -1) - shares
    found = np.zeros(mass.shape, dtype=bool)
    np.put_along_axis(found, order, (before < top_p - 1e-12) & (shares > 0), axis=-1)
    return found


def jaccard(first: Array, second: Array) -> Array:
    """|A ∩ B| / |A ∪ B| of sets (..., experts); 0 where both are empty."""
    both, either = (first & second).sum(-1), (first | second).sum(-1)
    return np.divide(both, either, out=np.zeros(np.shape(both)), where=either > 0)


def overlap(mass: Array, top_p: float) -> Array:
    """Mean Jaccard of the leaders over pairs of domains; mass (..., domains, experts)."""
    sets = leaders(mass, top_p)
    a, b = np.triu_indices(mass.shape[-2], 1)
    return jaccard(sets[..., a, :], sets[..., b, :]).mean(-1)


def by_chance(sizes: Array, experts: int) -> float:
    """Mean Jaccard of independent random sets of these sizes, over pairs: of expected intersection and union."""
    a, b = np.triu_indices(len(sizes), 1)
    both = sizes[a] * sizes[b] / experts
    return float(np.mean(both / np.maximum(sizes[a] + sizes[b] - both, 1e-300)))
