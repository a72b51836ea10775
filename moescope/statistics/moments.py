"""Streaming: the dimensionality of states that are never kept, from batches as they pass.

`Moments` holds sums up to the fourth order about a pivot, in float64: exact, mergeable, one (d, d) matrix.
`Drawn` holds a few states of each of a few sequences, drawn by hash: bounded, mergeable, and the same sequences are drawn in
every layer and module, so that two of them can be compared in pairs and at equal n.
`States` is both, and answers with rows for `measures`.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import AnalysisError
from .participation import Floats, Grouped, from_sums, quotient, spread

GROUPS, PER_GROUP = 256, 2


@dataclass
class Moments:
    """Sums of y = x − pivot: n, Σy, Σyyᵀ, Σ|y|²y, Σ|y|⁴; from them the covariance and both forms of PR."""

    n: int = 0
    pivot: Floats = field(default_factory=lambda: np.zeros(0))
    first: Floats = field(default_factory=lambda: np.zeros(0))
    second: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    third: Floats = field(default_factory=lambda: np.zeros(0))
    fourth: float = 0.0

    def update(self, states: Floats) -> None:
        """Take in `states` (samples, dimensions)."""
        x = np.asarray(states, dtype=np.float64)
        if len(x):
            y = x - (self.pivot if self.n else x.mean(axis=0))
            square = np.einsum("ij,ij->i", y, y)
            self.merge(Moments(len(x), x[0] - y[0], y.sum(0), y.T @ y, square @ y, float(square @ square)))

    def merge(self, other: "Moments") -> None:
        """Take in what another saw."""
        if not self.n:
            other = other._about(other.pivot)
            self.n, self.pivot, self.first = other.n, other.pivot, other.first
            self.second, self.third, self.fourth = other.second, other.third, other.fourth
        elif other.n:
            other = other._about(self.pivot)
            self.n += other.n
            self.first, self.second = self.first + other.first, self.second + other.second
            self.third, self.fourth = self.third + other.third, self.fourth + other.fourth

    def _about(self, pivot: Floats) -> "Moments":
        """The same sums about another pivot: every y grows by d = old pivot − new pivot."""
        d, n, s1, s2 = self.pivot - pivot, self.n, self.first, self.second
        dd, total, along = float(d @ d), float(np.trace(s2)), float(d @ s1)
        outer = np.outer(s1, d)
        third = self.third + 2 * s2 @ d + dd * s1 + (total + 2 * along + n * dd) * d
        fourth = self.fourth + 4 * d @ s2 @ d + n * dd**2 + 4 * d @ self.third + 2 * dd * total + 4 * dd * along
        return Moments(n, pivot, s1 + n * d, s2 + outer + outer.T + n * np.outer(d, d), third, float(fourth))

    @property
    def mean(self) -> Floats:
        """(d,)"""
        return self.pivot + self.first / self.n

    @property
    def covariance(self) -> Floats:
        """(d, d), over n − 1."""
        return self._about(self.mean).second / (self.n - 1)

    def participation_ratio(self, estimator: str = "naive") -> float:
        """(tr C)² / tr(C²), or its unbiased form where the samples are independent (n ≥ 4); NaN where undefined."""
        if self.n < (4 if estimator == "unbiased" else 2):
            return float("nan")
        centred = self._about(self.mean)
        trace, frobenius = float(np.trace(centred.second)), float(np.sum(centred.second**2))
        if estimator == "unbiased":
            return from_sums(self.n, trace, centred.fourth, frobenius)
        return trace**2 / frobenius if frobenius > 0 else float("nan")


class Drawn:
    """At most `per_group` states of at most `groups` sequences, whichever have the smallest hash of their number."""

    def __init__(self, groups: int = GROUPS, per_group: int = PER_GROUP, seed: int = 0) -> None:
        self.limit, self.per_group, self.seed = groups, per_group, seed
        self.rng = np.random.default_rng(seed)
        self.states = np.zeros((0, 0))
        self.groups = np.zeros(0, dtype=np.uint64)
        self.lots = np.zeros(0)
        self.capped = False

    def update(self, states: Floats, groups: Floats) -> None:
        """Take in `states` (samples, dimensions) of the sequences `groups` (samples,), whole numbers."""
        states, groups = np.asarray(states), np.asarray(groups).astype(np.uint64)
        keep = np.isin(groups, self._smallest(np.concatenate([self.groups, groups])))
        self._take(states[keep], groups[keep], self.rng.random(int(keep.sum())))

    def merge(self, other: "Drawn") -> None:
        """Take in what another drew, with the same limits."""
        self.capped |= other.capped
        self._take(other.states, other.groups, other.lots)

    def _take(self, states: Floats, groups: Floats, lots: Floats) -> None:
        if not len(states):
            return
        if len(self.states):
            states = np.concatenate([self.states, states])
            groups, lots = np.concatenate([self.groups, groups]), np.concatenate([self.lots, lots])
        order = np.lexsort((lots, groups))
        place = np.arange(len(order)) - np.searchsorted(groups[order], groups[order])
        order = order[(place < self.per_group) & np.isin(groups[order], self._smallest(groups))]
        self.states, self.groups, self.lots = states[order].copy(), groups[order], lots[order]

    def _smallest(self, groups: Floats) -> Floats:
        known = np.unique(groups)
        if len(known) <= self.limit:
            return known
        self.capped = True
        return np.asarray(known[np.argsort(_hash(known, self.seed))[: self.limit]])


class States:
    """What a tracer holds for one stream of states (a layer, an expert's input, a module at a cycle).

    `update(states, groups)`: (samples, dimensions) and the sequence of each sample. `covariance=False` keeps no (d, d) matrix,
    for streams of which there are many; the naive form is then of the drawn states.
    """

    def __init__(self, groups: int = GROUPS, per_group: int = PER_GROUP, covariance: bool = True, seed: int = 0) -> None:
        self.moments = Moments() if covariance else None
        self.drawn = Drawn(groups, per_group, seed)
        self.n = 0

    def update(self, states: Floats, groups: Floats) -> None:
        """Take in one batch."""
        self.n += len(states)
        self.drawn.update(states, groups)
        if self.moments is not None:
            self.moments.update(states)

    def merge(self, other: "States") -> None:
        """Take in what another saw of the same stream."""
        self.n += other.n
        self.drawn.merge(other.drawn)
        if self.moments is not None and other.moments is not None:
            self.moments.merge(other.moments)

    def copy(self) -> "States":
        """As they are now, whatever is taken in later: arrays are replaced, never written to, so none is copied."""
        kept = copy(self)
        kept.moments, kept.drawn = copy(self.moments), copy(self.drawn)
        return kept

    def measures(self, **where: Any) -> list[dict[str, Any]]:
        """Rows for the table `measures`: PR naive (of all states) and unbiased (across sequences, with its interval).

        `where` gives run, router, layer, expert, subset; a form that is undefined (too few sequences) gives no row.
        """
        moments = self.moments
        if moments is None:
            moments = Moments()
            moments.update(self.drawn.states)
        row = {"name": "participation_ratio", "units": len(np.unique(self.drawn.groups)), **where}
        rows = [row | {"estimator": "naive", "value": moments.participation_ratio(), "n": moments.n}]
        if row["units"] >= 4:
            value, low, high = spread(Grouped(self.drawn.states, self.drawn.groups))
            rows.append(
                row | {"estimator": "unbiased", "value": value, "ci_low": low, "ci_high": high, "n": len(self.drawn.states)}
            )
        return [row for row in rows if np.isfinite(row["value"])]


def at_equal_n(streams: Mapping[str, States]) -> dict[str, float]:
    """Naive PR of every stream from equally many states, one of each of the sequences that all streams drew.

    Experts see different numbers of tokens, so that naive values of all they saw rank their load. AnalysisError where fewer
    than four sequences are common.
    """
    drawn = {name: dict(zip(s.drawn.groups[::-1].tolist(), s.drawn.states[::-1])) for name, s in streams.items()}
    common = sorted(set.intersection(*(set(rows) for rows in drawn.values()))) if drawn else []
    if len(common) < 4:
        raise AnalysisError(f"the streams share {len(common)} sequences, and at least 4 are needed; trace more sequences")
    result = {}
    for name, rows in drawn.items():
        moments = Moments()
        moments.update(np.stack([rows[group] for group in common]))
        result[name] = moments.participation_ratio()
    return result


def slow_over_fast(modules: Mapping[str, Sequence[States]]) -> list[dict[str, Any]]:
    """A row of `measures`: unbiased PR of the module that fires least over that of the one that fires most, at their last time.

    HRM's comparison (arXiv 2506.21734). `modules`: the states of every firing, in order. No row where no two modules fire
    differently often, or they share fewer than four sequences.
    """
    order = sorted(modules, key=lambda name: len(modules[name]))
    if len({len(modules[name]) for name in order[:2]}) < 2 or len({len(modules[name]) for name in order[-2:]}) < 2:
        return []
    drawn = [modules[name][-1].drawn for name in (order[0], order[-1])]
    common = np.intersect1d(drawn[0].groups, drawn[1].groups)
    if len(common) < 4:
        return []
    slow, fast = (Grouped(d.states[kept], d.groups[kept]) for d in drawn for kept in [np.isin(d.groups, common)])
    value, low, high = quotient([slow], [fast])
    row = {"name": "slow_over_fast", "estimator": "unbiased", "subset": f"{order[0]} over {order[-1]}", "chance": 1.0}
    row |= {"value": value, "ci_low": low, "ci_high": high, "n": len(slow.member), "units": len(common)}
    return [row] if np.isfinite(value) else []


def _hash(numbers: Floats, seed: int) -> Floats:
    """splitmix64: an even order that depends on nothing but the number."""
    with np.errstate(over="ignore"):
        z = numbers + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
