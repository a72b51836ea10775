"""Participation ratio PR = (Σλ)² / Σλ² = (tr Σ)² / tr(Σ²), λ the eigenvalues of the covariance Σ of states.

Naive: of the sample covariance; biased down, about 1 / (1/P + 1/d + 1/PR) for P samples.
Unbiased: numerator and denominator are U-statistics, averages over disjoint indices, so that no sample meets itself
(Chun, Canatar, Chung & Lee, Estimating Dimensionality of Neural Representations from Finite Samples, ICLR 2026, the form
for all neurons and few samples; the same sums as Chen, Zhang & Zhong 2010). It takes four independent samples or more.
Where several states come from one sequence, the sequence is the sample: a state stands for "a random token of a random
sequence", and only states of different sequences meet.
"""

import numpy as np

from . import resampling

Floats = np.ndarray


def from_sums(n: float, trace: float, fourth: float, frobenius: float) -> float:
    """Unbiased PR of n independent samples, from sums about their mean m.

    trace = Σ|x−m|², fourth = Σ|x−m|⁴, frobenius = the squared norm of the scatter matrix Σ(x−m)(x−m)ᵀ. As the centred
    Gram matrix has rows that sum to zero, every sum over disjoint indices follows from these. NaN where tr(Σ²) comes out ≤ 0.
    """
    two, three, four = n * (n - 1), n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3)
    disjoint = (trace**2 - 6 * fourth + 2 * frobenius) / four
    numerator = (trace**2 - fourth) / two + 2 * (trace**2 - 2 * fourth) / three + disjoint
    denominator = (frobenius - fourth) / two - 2 * (2 * fourth - frobenius) / three + disjoint
    return float(numerator / denominator) if denominator > 0 else float("nan")


def sums(states: Floats) -> tuple[int, float, float, float]:
    """What `from_sums` takes, of `states` (samples, dimensions)."""
    x = np.asarray(states, dtype=np.float64)
    x = x - x.mean(axis=0)
    square = np.einsum("ij,ij->i", x, x)
    product = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    return len(x), float(square.sum()), float(square @ square), float(np.sum(product**2))


class Grouped:
    """States of several sequences, reduced to what PR needs of every pair of sequences.

    `states` (rows, dimensions); `groups` (rows,) says the sequence of each. `ratio(weights)` is the unbiased PR where the
    sequences count `weights` (replicates, sequences) times, as in a bootstrap; copies of one sequence never meet.
    """

    def __init__(self, states: Floats, groups: Floats) -> None:
        self.groups, self.member = np.unique(groups, return_inverse=True)
        x = np.asarray(states, dtype=np.float64)
        self.share = 1.0 / np.bincount(self.member)[self.member]
        x = x - self._sum(self.share[:, None] * x).mean(axis=0)
        means = self._sum(self.share[:, None] * x)
        self.trace = self._sum(self.share * np.einsum("ij,ij->i", x, x))
        self.cross = x @ means.T
        self.cross[np.arange(len(x)), self.member] = 0.0
        self.means = _hollow(means @ means.T)
        gram = (x @ x.T) ** 2 * self.share[:, None] * self.share
        self.second = _hollow(self._sum(self._sum(gram).T))

    def __len__(self) -> int:
        return len(self.groups)

    def _sum(self, rows: Floats) -> Floats:
        """Sums over the rows of each group."""
        order = np.argsort(self.member, kind="stable")
        starts = np.searchsorted(self.member[order], np.arange(len(self.groups)))
        return np.asarray(np.add.reduceat(rows[order], starts, axis=0))

    def ratio(self, weights: Floats | None = None) -> Floats:
        """Unbiased PR (replicates,); infinite where the estimate of tr(Σ²) is not above zero."""
        c = np.ones((1, len(self))) if weights is None else np.atleast_2d(np.asarray(weights, dtype=np.float64))
        two, three, four = _tuples(c)
        reach = c @ self.means
        pairs = np.einsum("bg,bg->b", c, reach)
        squares = np.einsum("bg,gh,bh->b", c**2, self.means**2, c**2, optimize=True)
        shared = np.einsum("bg,bg->b", c**2, reach**2 - c**2 @ self.means**2)
        disjoint = (pairs**2 - 4 * shared - 2 * squares) / np.maximum(four, 1)
        rows = c[:, self.member] * self.share
        middle = np.einsum("bi,bi->b", rows, (c @ self.cross.T) ** 2 - c**2 @ (self.cross**2).T) / np.maximum(three, 1)
        weighed = c * self.trace
        ends = np.einsum("bg,bg->b", weighed, pairs[:, None] - 2 * c * reach) / np.maximum(three, 1)
        both = (weighed.sum(1) ** 2 - np.sum(weighed**2, 1)) / np.maximum(two, 1)
        first = np.einsum("bg,gh,bh->b", c, self.second, c, optimize=True) / np.maximum(two, 1)
        numerator, denominator = both - 2 * ends + disjoint, first - 2 * middle + disjoint
        good = denominator > 0
        return np.where(good, numerator / np.where(good, denominator, 1.0), np.inf)


def spread(states: Grouped, draws: int = resampling.DRAWS, seed: int = 0) -> tuple[float, float, float]:
    """Unbiased PR and its 95 % interval from a bootstrap over sequences; the interval is NaN for fewer than MIN_UNITS."""
    weights = resampling.bootstrap_weights(len(states), draws, seed)
    value = float(states.ratio()[0])
    return value, *log_interval(value, states.ratio(weights), len(states))


def log_interval(value: float, draws: Floats, units: int) -> tuple[float, float]:
    """value × exp(± t s), s the standard deviation of the log of the finite bootstrap draws, t Student's for units − 1.

    On the logarithm, because a ratio with a small denominator is skewed; the upper end is infinite where a fortieth of the
    draws have no finite value. Empty (NaN) where there are fewer than MIN_UNITS sequences.
    """
    from scipy import stats  # half a second to load, and tracing needs none of it

    logs = np.log(draws[np.isfinite(draws) & (draws > 0)])
    if units < resampling.MIN_UNITS or len(logs) < len(draws) / 2 or not np.isfinite(value) or value <= 0:
        return float("nan"), float("nan")
    reach = float(np.exp(stats.t.isf((1 - resampling.LEVEL) / 2, units - 1) * logs.std()))
    open_end = len(logs) < (1 - (1 - resampling.LEVEL) / 2) * len(draws)
    return value / reach, float("inf") if open_end else value * reach


def quotient(over: list[Grouped], under: list[Grouped]) -> tuple[float, float, float]:
    """Geometric mean PR of `over` over that of `under`, all of the same sequences, and its interval.

    The bootstrap draws the same sequences in all of them.
    """
    weights = resampling.bootstrap_weights(len(over[0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.exp(_logs(over, None) - _logs(under, None))[0])
        draws = np.exp(_logs(over, weights) - _logs(under, weights))
    return value, *log_interval(value, draws, len(over[0]))


def _logs(streams: list[Grouped], weights: Floats | None) -> Floats:
    return np.asarray(np.mean([np.log(stream.ratio(weights)) for stream in streams], axis=0))


def _hollow(matrix: Floats) -> Floats:
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _tuples(c: Floats) -> tuple[Floats, Floats, Floats]:
    """Weight of all pairs, triples and quadruples of different sequences (Newton's identities)."""
    p1, p2, p3, p4 = (np.sum(c**power, axis=1) for power in (1, 2, 3, 4))
    two, three = p1**2 - p2, p1**3 - 3 * p1 * p2 + 2 * p3
    return two, three, p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4
