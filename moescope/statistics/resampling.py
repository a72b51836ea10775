"""Documents drawn again, and the intervals that follow; labels permuted."""

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from ._types import Array

MIN_UNITS = 5  # documents below which no interval is given
DRAWS = 400  # bootstrap replications
LEVEL = 0.95
GROUPS = 512
MOST_UNITS = 4096  # documents beyond which a bootstrap draws groups of them: the same interval, in bounded memory


def bootstrap_weights(units: int, draws: int = DRAWS, seed: int = 0, strata: Array | None = None) -> Array:
    """(draws, units), read-only: how often each document is drawn, multinomially, within its stratum where there are some."""
    strata = np.zeros(units, dtype=int) if strata is None else np.asarray(strata, dtype=int)
    return _weights(strata.tobytes(), draws, seed)


@lru_cache(maxsize=4)
def _weights(stratum_of: bytes, draws: int, seed: int) -> Array:
    strata, rng = np.frombuffer(stratum_of, dtype=int), np.random.default_rng(seed)
    units = len(strata)
    weights = np.zeros((draws, units), dtype=np.float32)
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
    counts, strata = grouped(counts[some], None if strata is None else strata[some])
    return resampled(bootstrap_weights(len(counts), draws, seed, strata), counts)


def grouped(
    counts: Array, strata: Array | None = None, most: int = MOST_UNITS, groups: int = GROUPS
) -> tuple[Array, Array | None]:
    """Counts (documents, ...) and their strata; where documents are more than `most`, summed by groups of them.

    Documents of one stratum are dealt into `groups`: a stratum of up to so many keeps its documents.
    """
    if len(counts) <= most:
        return counts, strata
    home = np.zeros(len(counts), dtype=int) if strata is None else np.asarray(strata, dtype=int)
    place = np.zeros(len(counts), dtype=int)
    for stratum in np.unique(home):
        place[home == stratum] = np.arange((home == stratum).sum()) % groups
    names, group = np.unique(np.stack([home, place]), axis=1, return_inverse=True)
    flat = np.zeros((names.shape[1], int(np.prod(counts.shape[1:]))))
    np.add.at(flat, group.ravel(), counts.reshape(len(counts), -1))
    return flat.reshape(-1, *counts.shape[1:]), None if strata is None else names[0]


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
    `units`: documents behind each value, if not all that have counts. The interval is cut to `bounds`,
    never so that the value is outside of it.
    """
    counts = np.asarray(counts, dtype=float)
    known = int(_known(counts).sum()) if units is None else units
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.asarray(statistic(counts.sum(0)), dtype=float)
        low, high = interval(value, statistic(document_draws(counts, strata)), known)
    return value, np.minimum(np.clip(low, *bounds), value), np.maximum(np.clip(high, *bounds), value)


def information_interval(value: Array, draws: Array, null: Array, units: Array | int) -> tuple[Array, Array]:
    """Interval of an information less its null mean, from bootstrap `draws` of it and its `null` (first axis of both).

    Information is a sum of squares: T = |a + e|² with noise e, signal a. Its variance is that of the null plus a part that
    grows as |a|². A bootstrap starts from a + e, not a, and finds two null variances too much; and where the truth is 0 the
    variance is the null's, however large the value came out. So the interval holds all truths x with
    |value - x| <= t sqrt(null + slope x), as Wilson's does for shares, t Student's for units - 1. A value that the null alone
    reaches tells little of the slope, which then counts for less the nearer the value is to 0. Empty (NaN) under MIN_UNITS
    documents.
    """
    from scipy import stats  # half a second to load, and tracing needs none of it

    value, n = np.asarray(value, dtype=float), np.broadcast_to(np.asarray(units), np.shape(value))
    own, found = np.var(null, axis=0, ddof=1).reshape(value.shape), np.var(draws, axis=0).reshape(value.shape)
    t = stats.t.isf((1 - LEVEL) / 2, np.maximum(n - 1, 1))
    signal = np.maximum(found - 3 * own, 0) * np.maximum(n, 2) / np.maximum(n - 1, 1)
    known = np.minimum(value / np.maximum(t * np.sqrt(own), 1e-300), 1) ** 2
    half = t**2 * np.divide(signal * known, value, out=np.zeros_like(value), where=value > 0) / 2
    reach = np.sqrt(half**2 + 2 * half * np.maximum(value, 0) + t**2 * own)
    enough = np.where(n >= MIN_UNITS, 1.0, np.nan)
    return enough * (value + half - reach), enough * (value + half + reach)


def interval(value: Array, draws: Array | None, units: Array | int, level: float = LEVEL) -> tuple[Array, Array]:
    """Interval of `value` from bootstrap `draws` (first axis): quantiles about their mean, moved to `value`.

    Moving them takes out the bootstrap's own bias (mutual information and entropy have one). They are widened by
    sqrt(n/(n-1)) and by t over normal quantiles for n documents, as the expanded percentile interval is (Hesterberg 2015,
    arXiv 1411.5279), and empty (NaN) under MIN_UNITS documents.
    """
    from scipy import stats  # half a second to load, and tracing needs none of it

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
