"""What groups of documents would look like if they shared one distribution, each of as many and as long documents as it has."""

import numpy as np

from ._types import Array
from .resampling import bootstrap_weights


def common_draws(counts: Array, home: Array, groups: int, draws: int, seed: int = 0) -> Array:
    """(draws, groups, cells): sums of counts (documents, cells) by group, redrawn about the distribution of all documents.

    `home` (documents,) numbers each document's group. A group's documents are drawn with replacement, and its sum is its total
    times the shares of all, plus what the drawn documents lie off their group's own shares (a bootstrap under the null, Hall
    and Wilson 1991). So a group of few or short documents stays as noisy as it is, which dealing documents anew would
    hide. Cells below zero become zero. The shares of all are drawn towards even ones by that part of their spread which is
    noise (James and Stein 1961): unevenness by chance would look like what groups have in common.
    """
    counts = np.asarray(counts, dtype=float)
    pooled = _shares(counts)
    found = np.empty((draws, groups, counts.shape[1]))
    for group in range(groups):
        mine = counts[home == group]
        total, n = mine.sum(1, keepdims=True), len(mine)
        if not n or not total.sum():
            found[:, group] = 0
            continue
        off = (mine - total * (mine.sum(0) / total.sum())) * np.sqrt(n / max(n - 1, 1))
        found[:, group] = total.sum() * pooled + bootstrap_weights(n, draws, seed + group) @ off
    return np.maximum(found, 0)


def _shares(counts: Array) -> Array:
    """(cells,) shares of all documents, less the noise in their spread."""
    total, n = max(counts.sum(), 1e-300), max(len(counts), 2)
    shares = counts.sum(0) / total
    even = 1 / counts.shape[1]
    noise = n / (n - 1) * ((counts - counts.sum(1, keepdims=True) * shares) ** 2).sum() / total**2
    spread = ((shares - even) ** 2).sum()
    return even + (shares - even) * max(0.0, 1 - noise / max(spread, 1e-300))
