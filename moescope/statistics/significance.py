"""p values against permuted or drawn nulls, and the false discovery rate."""

import numpy as np

from ._types import Array


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
    from scipy import stats  # half a second to load, and tracing needs none of it

    sd = np.std(null, axis=0, ddof=1) * np.sqrt(1 + 1 / len(null))
    off = value - np.mean(null, axis=0)
    t = np.divide(off, sd, out=np.where(np.abs(off) < 1e-12, 0.0, np.where(off > 0, np.inf, -np.inf)), where=sd > 1e-12)
    above, below = stats.t.sf(t, len(null) - 1), stats.t.cdf(t, len(null) - 1)
    return {"greater": above, "less": below, "both": np.minimum(2 * np.minimum(above, below), 1)}[side]


def fdr(p: Array) -> Array:
    """Benjamini-Hochberg q values; NaN stays NaN and is not counted as a test."""
    from scipy import stats  # half a second to load, and tracing needs none of it

    p = np.asarray(p, dtype=float)
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q
