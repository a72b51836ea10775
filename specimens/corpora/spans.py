"""Span corruption as T5 does it: a seventh of the ids go, in spans of three on average, each behind one sentinel.

Every row loses the same number of ids in the same number of spans, so a batch has no padding.
"""

from __future__ import annotations

import numpy as np

DENSITY, MEAN_SPAN = 0.15, 3.0


def parts(total: int, count: int, random: np.random.Generator) -> np.ndarray:
    """A random composition of `total` into `count` positive parts."""
    cuts = np.sort(random.choice(np.arange(1, total), count - 1, replace=False))
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt(row: np.ndarray, sentinels: list[int], end: int, random: np.random.Generator) -> tuple[list[int], list[int]]:
    """(input, target) of one row of ids: kept ids with sentinels, and sentinels with what they stand for; `end` closes."""
    noise = max(round(len(row) * DENSITY), 1)
    spans = max(round(noise / MEAN_SPAN), 1)
    kept, lost = parts(len(row) - noise, spans, random), parts(noise, spans, random)
    source: list[int] = []
    target: list[int] = []
    at = 0
    for sentinel, k, n in zip(sentinels, kept, lost):
        source += [*row[at : at + k].tolist(), sentinel]
        target += [sentinel, *row[at + k : at + k + n].tolist()]
        at += int(k + n)
    return [*source, end], [*target, end]


def corrupted(rows: np.ndarray, sentinels: list[int], end: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of many rows, stacked; all have one length."""
    random = np.random.default_rng(seed)
    pairs = [corrupt(row, sentinels, end, random) for row in rows]
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
