"""p values against permuted or drawn nulls, and the false discovery rate."""

import warnings

import numpy as np

from ._types import Array

FLOOR = 1e-6  # below which no fitted tail is believed
GUMBEL = 1.14  # skewness of the largest of many
COUNTED = 10  # draws beyond a value that are counted, fewer are too few to count


def p_value(value: Array, null: Array, side: str = "greater") -> Array:
    """Share of permuted values (first axis of `null`) at least as far out, the observed one counted in; never 0.

    `side` is greater, less or both (twice the smaller, at most 1).
    """
    close = 1e-9 * np.maximum(np.abs(value), 1e-9)
    above = (1 + np.sum(null >= value - close, axis=0)) / (len(null) + 1)
    below = (1 + np.sum(null <= value + close, axis=0)) / (len(null) + 1)
    return {"greater": above, "less": below, "both": np.minimum(2 * np.minimum(above, below), 1)}[side]


def t_tail(value: Array, null: Array, side: str = "greater", skew: Array | float = 0.0) -> Array:
    """p of `value` as one more draw of a normal null known by few draws: Student's t with len(null) - 1 degrees; >= FLOOR.

    `skew`: the null's skewness where that is known to be positive, more exactly than few draws would say it. Then the quantile
    is a Pearson III curve's of that skewness, read on Student's t as in `curve_tail`.
    """
    from scipy import stats  # half a second to load, and tracing needs none of it

    sd = np.std(null, axis=0, ddof=1) * np.sqrt(1 + 1 / len(null))
    off = value - np.mean(null, axis=0)
    t = np.divide(off, sd, out=np.where(np.abs(off) < 1e-12, 0.0, np.where(off > 0, np.inf, -np.inf)), where=sd > 1e-12)
    if np.any(np.asarray(skew) > 0):
        t = np.where(np.isfinite(t), stats.norm.isf(np.clip(stats.pearson3.sf(t, skew), 1e-300, 1)), t)
    above, below = stats.t.sf(t, len(null) - 1), stats.t.cdf(t, len(null) - 1)
    return np.maximum({"greater": above, "less": below, "both": np.minimum(2 * np.minimum(above, below), 1)}[side], FLOOR)


def skew_of_largest(n: Array) -> float:
    """The most skewness that a mean over groups of each group's largest share has, of groups of `n` (groups,) things.

    A largest of many is at most as skewed as Gumbel's law (1.14), each group's varies as 1 / n, and independent parts of a
    mean add third moments as they add variances.
    """
    n = np.asarray(n, dtype=float)
    n = n[n > 1]  # the share of one thing is 1
    return float(GUMBEL * (n**-1.5).sum() / max((1 / n).sum(), 1e-300) ** 1.5)


def document_tail(draws: Array, value: float, units: int) -> float:
    """Two-sided p of 0 for `value` with bootstrap `draws` over documents: Student's t with units - 1 degrees; from FLOOR up."""
    from scipy import stats  # half a second to load, and tracing needs none of it

    error = float(np.std(draws)) * np.sqrt(units / max(units - 1, 1))
    if units < 2 or error <= 0:
        return float("nan")
    return max(float(2 * stats.t.sf(abs(value) / error, units - 1)), FLOOR)


def curve_tail(value: Array, null: Array) -> Array:
    """P(null ≥ value) by a Pearson III (shifted gamma) curve with the null's mean, variance and skewness, for skewed nulls.

    The skewness is that of the draws (first axis), but no less than a gamma's of that mean and variance. The curve's quantile
    is read on Student's t with len(null) - 1 degrees, as mean and variance are known by so many draws only. Where ten draws or
    more reach `value` they are counted instead. From FLOOR up; 1 where the null does not vary.
    """
    from scipy import stats  # half a second to load, and tracing needs none of it

    mean, deviation = np.mean(null, axis=0), np.std(null, axis=0, ddof=1)
    flat = (deviation <= 1e-10) | (mean <= 0)
    mean, deviation = np.where(flat, 1.0, mean), np.where(flat, 1.0, deviation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nulls that do not vary, which are 1 below
        skew = np.nan_to_num(stats.skew(null, axis=0))
    curve = stats.pearson3.sf(value, np.maximum(skew, 2 * deviation / mean), mean, deviation)
    p = stats.t.sf(stats.norm.isf(np.clip(curve, 1e-300, 1)) / np.sqrt(1 + 1 / len(null)), len(null) - 1)
    p = np.where(np.sum(null >= value, axis=0) >= COUNTED, p_value(value, null), p)
    return np.where(flat, 1.0, np.clip(p, FLOOR, 1.0))[()]


def fdr(p: Array, family: Array | None = None) -> Array:
    """Benjamini-Hochberg q values; NaN stays NaN and is not counted as a test.

    With `family` (n,), any names: within each, times the number of families, so that a list in which nothing is true has a
    finding at q <= .05 in no more than 5 % of cases whatever its families are, and what is true in one does not make room for
    chance in another. Families that hold the very same p (one test under two names) count once.
    """
    p = np.asarray(p, dtype=float)
    if family is None:
        return _adjusted(p)
    tests, times = families(p, family)
    q, code = np.full(p.shape, np.nan), np.unique(np.asarray(family), return_inverse=True)[1]
    for number in np.unique(code[tests > 0]):
        q[code == number] = np.minimum(_adjusted(p[code == number]) * times, 1)
    return q


def families(p: Array, family: Array) -> tuple[Array, int]:
    """What `fdr` adjusts over: (n,) tests in each one's family, and the number of families by which q is multiplied."""
    known = np.isfinite(p := np.asarray(p, dtype=float))
    code = np.unique(np.asarray(family), return_inverse=True)[1]
    tests = np.bincount(code, known, minlength=1).astype(int)
    different = {np.unique(p[known & (code == number)]).tobytes() for number in np.flatnonzero(tests)}
    return tests[code], len(different)


def _adjusted(p: Array) -> Array:
    from scipy import stats  # half a second to load, and tracing needs none of it

    q, known = np.full(p.shape, np.nan), np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q
