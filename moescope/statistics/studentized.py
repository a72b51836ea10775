"""Differences between groups of documents in units of their own error, so that documents may differ in length and in kind.

Labels dealt anew to documents make every group as precise as the next. Where one label's documents are short, or few, the plain
difference of that label varies more than such a null says. Divided by its own standard error, in the data as in every
permutation, it keeps its level (Janssen 1997; Chung & Romano 2013, Ann. Statist. 41).

`rate` is a ratio over documents, Σ x_u / Σ n_u; its variance that of a ratio, Σ (x_u − rate n_u)² / N² · m / (m − 1) for m
documents, drawn towards the same multiple of the binomial one that all experts of the group have on average, as if that were
known from PRIOR more documents (so that few documents make no heavy tail; as Smyth 2004 does for genes), and no less than a
quarter of the binomial one, so that few documents that agree by luck are not taken for certain.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ._types import Array

LEAST = 0.25  # of the binomial variance
PRIOR = 20  # documents that what a group's experts have in common is worth


@dataclass(frozen=True)
class Rates:
    """Counts x (rows, E) of totals n (rows,), a row a document, ready to be summed over groups of documents.

    `binomial` (E,): the variance of one of the n if all were independent; that of the overall rate where x are counts.
    """

    x: Array
    n: Array
    binomial: Array | None = None

    @property
    def overall(self) -> Array:
        """(E,): Σ x / Σ n."""
        return np.asarray(self.x.sum(0) / max(float(self.n.sum()), 1e-300))

    @property
    def columns(self) -> Array:
        """(rows, 3 E + 3) float32: what is summed; x less its share of n, so that squares do not cancel."""
        n = self.n[:, None]
        off = self.x - self.overall * n
        return np.concatenate([off, off**2, off * n, n, n**2, np.ones_like(n)], axis=1).astype(np.float32)

    def grouped(self, sums: Array) -> "Grouped":
        """From sums (..., groups, columns) of `columns` over the rows of each group."""
        inside, sums = np.clip(self.overall, 0, 1), np.asarray(sums, dtype=float)
        return Grouped(sums, self.overall, inside * (1 - inside) if self.binomial is None else self.binomial)


@dataclass(frozen=True)
class Paired(Rates):
    """The same where a document has several rows, in different groups: `unit` (rows,) numbers the document of each."""

    unit: Array = field(default_factory=lambda: np.zeros(0, dtype=int))

    @property
    def columns(self) -> Array:
        """(rows, 6 E + 4) float32: with products by what the whole document has."""
        off, n = self.x - self.overall * self.n[:, None], self.n[:, None]
        whole, size = (by[self.unit] for by in self._whole)
        more = np.concatenate([off * whole, off * size, n * whole, n * size], axis=1).astype(np.float32)
        return np.concatenate([more, super().columns], axis=1)

    @property
    def _whole(self) -> tuple[Array, Array]:
        """(documents, E) and (documents, 1): off and n of whole documents."""
        documents = int(np.max(self.unit, initial=-1)) + 1
        both = np.zeros((documents, self.x.shape[1] + 1))
        np.add.at(both, self.unit, np.c_[self.x - self.overall * self.n[:, None], self.n])
        return both[:, :-1], both[:, -1:]

    def grouped(self, sums: Array) -> "Grouped":
        """From sums (..., groups, columns) of `columns` over the rows of each group."""
        plain = super().grouped(sums)
        off, n = self._whole
        fixed = np.stack([(off**2).sum(0), (off * n).sum(0), np.full(off.shape[1], float((n**2).sum()))])
        return Grouped(plain.sums, plain.overall, plain.binomial, fixed)


@dataclass(frozen=True)
class Grouped:
    """Sums over groups of documents, (..., groups, columns); `whole` (3, E): squares of whole documents, where rows are
    paired."""

    sums: Array
    overall: Array
    binomial: Array
    whole: Array | None = None

    @property
    def counts(self) -> Array:
        """(..., groups, E): Σ x."""
        e = len(self.overall)
        return np.asarray(self._plain[..., :e] + self.overall * self._plain[..., -3:-2])

    @property
    def totals(self) -> Array:
        """(..., groups, 1): Σ n."""
        return np.asarray(self.sums[..., -3:-2])

    @property
    def noise(self) -> Array:
        """(...,): what the documents' own spread adds to the information of the groups, to second order, up to a factor.

        Σ over groups and documents of (x − rate n)² / (rate Σ n), less the part that a group is of all it is measured from.
        Groups dealt anew are all as precise as the next; times this of the groups as they are over this of those dealt, the
        information of the dealt is that of groups as long as they are.
        """
        e, n = len(self.overall), np.maximum(self.totals[..., 0], 1e-9)
        square = self._plain[..., e : 2 * e] / np.where(self.overall > 0, self.overall, np.inf)
        return np.asarray((square.sum(-1) / n * (1 - n / n.sum(-1, keepdims=True))).sum(-1))

    @property
    def _plain(self) -> Array:
        return self.sums[..., self.sums.shape[-1] - 3 * len(self.overall) - 3 :]

    def against_rest(self) -> Array:
        """(..., groups, E): each group's rate less that of all other documents, over the error of the difference."""
        own = self._own
        rest = _Rate(self._plain.sum(-2, keepdims=True) - self._plain, self.binomial)
        if self.whole is None:
            return _difference(own.rate - rest.rate, own.variance + rest.variance)
        variance = np.maximum(self._paired(own, rest), own.least + rest.least)
        return _difference(own.rate - rest.rate, np.where(np.isnan(own.variance + rest.variance), np.nan, variance))

    @cached_property
    def _own(self) -> "_Rate":
        return _Rate(self._plain, self.binomial)

    def _paired(self, own: "_Rate", rest: "_Rate") -> Array:
        """Σ over documents of the squared influence on the difference, what a document has in both groups together."""
        e = len(self.overall)
        off_whole, off_size, n_whole = (self.sums[..., i * e : (i + 1) * e] for i in range(3))
        n_size = self.sums[..., 3 * e : 3 * e + 1]
        assert self.whole is not None
        a, b = 1 / own.n + 1 / rest.n, own.rate / own.n + rest.rate / rest.n
        c, d = 1 / rest.n, rest.rate / rest.n
        mine = a**2 * own.square + b**2 * own.n2 - 2 * a * b * own.cross
        both = a * d * off_size + b * c * n_whole - a * c * off_whole - b * d * n_size
        every = c**2 * self.whole[0] - 2 * c * d * self.whole[1] + d**2 * self.whole[2]
        return np.asarray((mine + 2 * both + every) * own.m / np.maximum(own.m - 1, 1))

    def between(self, first: list[int], second: list[int]) -> Array:
        """(..., pairs, E): the same of pairs of groups, as if they shared no document (which errs to the larger p)."""
        rate, variance = self._own.rate, self._own.variance
        off = rate[..., first, :] - rate[..., second, :]
        return _difference(off, variance[..., first, :] + variance[..., second, :])


class _Rate:
    """Rate less the overall one, and its variance (NaN where there are fewer than two documents), from sums (..., 3 E + 3)."""

    def __init__(self, sums: Array, binomial: Array) -> None:
        e = len(binomial)
        off, self.square, self.cross = sums[..., :e], sums[..., e : 2 * e], sums[..., 2 * e : 3 * e]
        n, self.n2, self.m = (sums[..., i : i + 1 or None] for i in (-3, -2, -1))
        self.n = np.maximum(n, 1e-9)
        self.rate = off / self.n
        self.least = LEAST * binomial / self.n
        spread = np.maximum(self.square - 2 * self.rate * self.cross + self.rate**2 * self.n2, 0) / self.n**2
        spread = spread * self.m / np.maximum(self.m - 1, 1)
        if (some := binomial > 0).any():
            over = (spread[..., some] / (binomial[some] / self.n)).mean(-1, keepdims=True)
            shared = np.where(some, over * binomial / self.n, spread)
            spread = ((self.m - 1) * spread + PRIOR * shared) / (self.m - 1 + PRIOR)
        spread = np.maximum(spread, self.least)
        self.variance = np.where(self.m > 1.5, spread, np.nan)


def _difference(off: Array, variance: Array) -> Array:
    error = np.sqrt(variance)
    return np.asarray(np.divide(off, error, out=np.where(np.isnan(error), np.nan, 0.0), where=error > 0))


def omnibus(t: Array) -> Array:
    """(...,): sum of squares over the last two axes, unknown differences left out; NaN where none is known."""
    known = np.isfinite(t).any(axis=(-2, -1))
    return np.where(known, np.nansum(t**2, axis=(-2, -1)), np.nan)


class Pool:
    """Null values of many like statistics, counted together: p values finer than one statistic's permutations give.

    Studentized differences vary alike whatever expert they are of, so that the permuted values of all of them are one null
    (Tusher, Tibshirani & Chu 2001). p is the share of all permuted values at least as large, so that under the null
    M statistics together have M x with p below x. Where fewer than COUNTED are, a generalized Pareto tail of the squares above
    the TOP largest says it (Knijnenburg et al. 2009), its shape not below 0, down to a hundredth of one value's share.
    """

    FINE, MOST, COUNTED, TOP, REACH = 2000, 40_000, 10, 250, 100
    # steps of log(1 + |t|); a value counts as its step does, which errs to the larger p

    def __init__(self) -> None:
        self.counted = np.zeros(self.MOST + 1, dtype=np.int64)
        self.draws = 0

    def _step(self, t: Array) -> Array:
        return np.minimum(np.floor(np.log1p(np.abs(t)) * self.FINE), self.MOST).astype(np.int64)

    def add(self, null: Array) -> None:
        """`null` (draws, ...), of one more statistic or many; NaN is left out."""
        self.draws = max(self.draws, len(null))
        self.counted += np.bincount(self._step(null[np.isfinite(null)]), minlength=self.MOST + 1)

    @property
    def floor(self) -> float:
        """The smallest p that counting can give."""
        return 1 / (1 + int(self.counted.sum()))

    def p(self, value: Array) -> Array:
        """Two-sided p of `value`; NaN where it is."""
        beyond = np.cumsum(self.counted[::-1])[::-1]
        known = np.isfinite(value)
        at = self._step(np.where(known, value, 0.0))
        p = (1 + beyond[at]) * self.floor
        if beyond[0] >= 4 * self.TOP:
            p = np.where(beyond[at] < self.COUNTED, np.minimum(self._tail(beyond, np.where(known, value, 0.0)), p), p)
        return np.where(known, p, np.nan)

    def _tail(self, beyond: Array, value: Array) -> Array:
        """By the moments of the squares' excess over the square that TOP values reach."""
        first = int(np.searchsorted(-beyond, -self.TOP, side="right")) - 1  # the last step that TOP or more reach
        squares = np.expm1(np.arange(first, self.MOST + 1) / self.FINE) ** 2
        n, excess = self.counted[first:], squares - squares[0]
        mean = max(float((n * excess).sum() / n.sum()), 1e-12)
        ratio = mean**2 / max(float((n * (excess - mean) ** 2).sum() / n.sum()), 1e-300)
        shape, scale = max((1 - ratio) / 2, 0.0), mean * (1 + min(ratio, 1.0)) / 2
        far = np.maximum(value**2 - squares[0], 0) / scale
        tail = np.exp(-far) if shape < 1e-6 else (1 + shape * far) ** (-1 / shape)
        return np.maximum(n.sum() * self.floor * tail, self.floor / self.REACH)
