"""How uneven loads are: counts over experts on the last axis; vectorised over leading axes."""

import numpy as np

from ._types import Array


def shares(counts: Array, axis: int = -1) -> Array:
    """Counts over their sum; zeros where there is nothing."""
    total = counts.sum(axis=axis, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


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
