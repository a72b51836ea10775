"""Numbers from counts: entropies, mutual information, document bootstrap, permutation nulls, false discovery rate.

Arrays of counts carry their cells on the last axes; everything is vectorised over leading axes. Information is in bits.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

Array = np.ndarray[Any, Any]
MIN_UNITS = 5  # documents below which no interval is given
DRAWS = 400  # bootstrap replications
LEVEL = 0.95


def shares(counts: Array, axis: int = -1) -> Array:
    """Counts over their sum; zeros where there is nothing."""
    total = counts.sum(axis=axis, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


def entropy(counts: Array, axis: int = -1) -> Array:
    """Shannon entropy in bits of counts or shares; 0 where there is nothing."""
    p = shares(np.asarray(counts, dtype=float), axis)
    return -np.sum(p * np.log2(p, out=np.zeros_like(p), where=p > 0), axis=axis)


def gini(counts: Array) -> Array:
    """Gini coefficient: 0 even, (E-1)/E all in one."""
    x = np.sort(shares(np.asarray(counts, dtype=float)), axis=-1)
    e = x.shape[-1]
    return np.sum((2 * np.arange(1, e + 1) - e - 1) * x, axis=-1) / e


def variation(counts: Array) -> Array:
    """Coefficient of variation: standard deviation (population) over mean of the loads."""
    p = shares(np.asarray(counts, dtype=float))
    return p.std(axis=-1) * p.shape[-1]


def max_violation(counts: Array) -> Array:
    """MaxVio: (largest load - mean) / mean (DeepSeek, arXiv 2408.15664)."""
    p = shares(np.asarray(counts, dtype=float))
    return p.max(axis=-1) * p.shape[-1] - 1


def mutual_information(table: Array) -> Array:
    """Plug-in mutual information in bits of (..., A, B) tables of counts."""
    table = np.asarray(table, dtype=float)
    joint = entropy(table.reshape(*table.shape[:-2], -1))
    return np.maximum(entropy(table.sum(-1)) + entropy(table.sum(-2)) - joint, 0)


def miller_madow(table: Array) -> Array:
    """Mutual information in bits with Miller's correction (m - 1) / 2N of each of its three entropies (Miller 1955)."""
    table = np.asarray(table, dtype=float)
    cells = (table > 0).sum((-2, -1))
    rows, columns = (table.sum(-1) > 0).sum(-1), (table.sum(-2) > 0).sum(-1)
    n = np.maximum(table.sum((-2, -1)), 1)
    return mutual_information(table) + (rows + columns - cells - 1) / (2 * n * np.log(2))


def normalized_information(table: Array) -> Array:
    """Mutual information over the arithmetic mean of the two entropies (scikit-learn's default); 0 where both are 0."""
    half = (entropy(table.sum(-1)) + entropy(table.sum(-2))) / 2
    return np.divide(mutual_information(table), half, out=np.zeros_like(half), where=half > 0)


def jensen_shannon(p: Array, q: Array) -> Array:
    """Jensen-Shannon divergence in bits (0 to 1) of two arrays of counts or shares; its root is the distance."""
    p, q = shares(np.asarray(p, dtype=float)), shares(np.asarray(q, dtype=float))
    return np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0)


def bootstrap_weights(units: int, draws: int = DRAWS, seed: int = 0, strata: Array | None = None) -> Array:
    """(draws, units), read-only: how often each document is drawn, multinomially, within its stratum where there are some."""
    strata = np.zeros(units, dtype=int) if strata is None else np.asarray(strata, dtype=int)
    return _weights(strata.tobytes(), draws, seed)


@lru_cache(maxsize=8)
def _weights(stratum_of: bytes, draws: int, seed: int) -> Array:
    strata, rng = np.frombuffer(stratum_of, dtype=int), np.random.default_rng(seed)
    units = len(strata)
    weights = np.zeros((draws, units))
    for stratum in np.unique(strata):
        (members,) = np.nonzero(strata == stratum)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    weights.setflags(write=False)
    return weights


def resampled(weights: Array, counts: Array) -> Array:
    """(draws, ...): counts (units, ...) summed over documents as often as each was drawn."""
    flat = counts.reshape(len(counts), -1)
    return (weights.astype(np.float32) @ flat.astype(np.float32)).astype(float).reshape(len(weights), *counts.shape[1:])


def document_draws(counts: Array, strata: Array | None = None, draws: int = DRAWS, seed: int = 0) -> Array:
    """(draws, ...): counts (documents, ...) of the documents that have any, drawn with replacement and summed."""
    some = _known(counts)
    if not some.any():
        return np.zeros((draws, *counts.shape[1:]))
    return resampled(bootstrap_weights(int(some.sum()), draws, seed, None if strata is None else strata[some]), counts[some])


def _known(counts: Array) -> Array:
    """(documents,): which have any counts."""
    return np.asarray(np.any(counts != 0, axis=tuple(range(1, counts.ndim))))


def over_documents(
    statistic: Callable[[Array], Array],
    counts: Array,
    *,
    strata: Array | None = None,
    units: Array | int | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[Array, Array, Array]:
    """(value, low, high): `statistic` of counts (documents, ...) summed over documents, with its 95 % interval over documents.

    The one recipe, for analyses, interventions and the dashboard. As many documents as have counts are drawn from these with
    replacement (Efron 1979), within `strata` (documents,) where these are given, and the statistic of each draw's sums goes
    into `interval`, which knows few documents. `statistic` is vectorised over leading axes; NaN in a draw is left out.
    `units`: documents behind each value, if not all that have counts. The interval is cut to `bounds`.
    """
    counts = np.asarray(counts, dtype=float)
    known = int(_known(counts).sum()) if units is None else units
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.asarray(statistic(counts.sum(0)), dtype=float)
        low, high = interval(value, statistic(document_draws(counts, strata)), known)
    return value, np.clip(low, *bounds), np.clip(high, *bounds)


def interval(value: Array, draws: Array | None, units: Array | int, level: float = LEVEL) -> tuple[Array, Array]:
    """Interval of `value` from bootstrap `draws` (first axis): quantiles about their mean, moved to `value`.

    Moving them takes out the bootstrap's own bias (mutual information and entropy have one). They are widened by
    sqrt(n/(n-1)) and by t over normal quantiles for n documents, as the expanded percentile interval is (Hesterberg 2015,
    arXiv 1411.5279), and empty (NaN) under MIN_UNITS documents.
    """
    value = np.asarray(value, dtype=float)
    n = np.broadcast_to(np.asarray(units), value.shape)
    if draws is None:
        return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    tail = (1 - level) / 2
    missing = bool(np.isnan(draws).any())  # draws in which nothing of a figure was drawn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing in any draw
        quantiles = (np.nanquantile if missing else np.quantile)(draws, [tail, 1 - tail], axis=0)
        low, high = quantiles - (np.nanmean if missing else np.mean)(draws, axis=0)
    df = np.maximum(n - 1, 1)
    wide = np.where(n >= MIN_UNITS, np.sqrt(np.maximum(n, 2) / df) * stats.t.isf(tail, df) / stats.norm.isf(tail), np.nan)
    return value + wide * low, value + wide * high


def p_value(value: Array, null: Array, side: str = "greater") -> Array:
    """Share of permuted values (first axis of `null`) at least as far out, the observed one counted in; never 0.

    `side` is greater, less or both (twice the smaller, at most 1).
    """
    close = 1e-9 * np.maximum(np.abs(value), 1e-9)
    above = (1 + np.sum(null >= value - close, axis=0)) / (len(null) + 1)
    below = (1 + np.sum(null <= value + close, axis=0)) / (len(null) + 1)
    return {"greater": above, "less": below, "both": np.minimum(2 * np.minimum(above, below), 1)}[side]


def t_tail(value: Array, null: Array, side: str = "greater") -> Array:
    """p of `value` as one more draw of a normal null known by few draws: Student's t with len(null) - 1 degrees."""
    sd = np.std(null, axis=0, ddof=1) * np.sqrt(1 + 1 / len(null))
    off = value - np.mean(null, axis=0)
    t = np.divide(off, sd, out=np.where(np.abs(off) < 1e-12, 0.0, np.where(off > 0, np.inf, -np.inf)), where=sd > 1e-12)
    above, below = stats.t.sf(t, len(null) - 1), stats.t.cdf(t, len(null) - 1)
    return {"greater": above, "less": below, "both": np.minimum(2 * np.minimum(above, below), 1)}[side]


def fdr(p: Array) -> Array:
    """Benjamini-Hochberg q values; NaN stays NaN and is not counted as a test."""
    p = np.asarray(p, dtype=float)
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


def orders(within: Array, draws: int, seed: int = 0) -> Iterator[Array]:
    """`draws` orders of rows, so that x[order] is x shuffled among rows with equal `within` (any integers, unsorted).

    One sort of integers that hold group, random bits and row: several times faster than lexsort.
    """
    rng, n = np.random.default_rng(seed), len(within)
    groups, code = np.unique(within, return_inverse=True)
    home = np.argsort(code, kind="stable")
    row_bits, group_bits = max(n - 1, 1).bit_length(), max(len(groups) - 1, 1).bit_length()
    free = 63 - row_bits - group_bits
    base = (code[home].astype(np.int64) << (free + row_bits)) | np.arange(n)
    for _ in range(draws):
        key = np.sort(base | (rng.integers(0, 1 << free, n) << row_bits))
        order = np.empty(n, dtype=np.int64)
        order[home] = home[key & ((1 << row_bits) - 1)]
        yield order


def permuted(labels: Array, draws: int, seed: int = 0, within: Array | None = None) -> Array:
    """(draws, n): `labels` shuffled, among equals of `within` only where it is given."""
    labels = np.asarray(labels)
    if within is None:
        return np.random.default_rng(seed).permuted(np.tile(labels, (draws, 1)), axis=1)
    result = np.empty((draws, len(labels)), dtype=labels.dtype)
    for row, order in zip(result, orders(np.asarray(within), draws, seed)):
        row[:] = labels[order]
    return result
