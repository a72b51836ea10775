"""Entropies, mutual information and divergences in bits, from counts with their cells on the last axes."""

import numpy as np

from ._types import Array
from .loads import shares


def entropy(counts: Array, axis: int = -1) -> Array:
    """Shannon entropy in bits of counts or shares; 0 where there is nothing."""
    p = shares(np.asarray(counts, dtype=float), axis)
    return -np.sum(p * np.log2(p, out=np.zeros_like(p), where=p > 0), axis=axis)


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
