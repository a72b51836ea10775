"""Span corruption (T5, arXiv 1910.10683, section 3.1.4): what an encoder–decoder trained by it reads and writes.

A share of the ids goes, in spans of three on average; the encoder reads a sentinel in place of each span, the decoder writes
each sentinel with what it stood for. Every position says which original id it came from, so that labels can follow.
"""

from dataclasses import dataclass

import numpy as np

DENSITY, MEAN_SPAN = 0.15, 3.0


@dataclass(frozen=True)
class Corrupted:
    """Input and target ids; `source_of` and `target_of` are the original places, None for sentinels and the end."""

    source: list[int]
    target: list[int]
    source_of: list[int | None]
    target_of: list[int | None]


def corrupt(ids: list[int], sentinels: list[int], end: int, random: np.random.Generator) -> Corrupted:
    """Corrupt one text of at least two ids; never in more spans than there are sentinels."""
    noise = min(max(round(len(ids) * DENSITY), 1), len(ids) - 1)
    spans = min(max(round(noise / MEAN_SPAN), 1), len(sentinels), len(ids) - noise)
    kept, lost = _parts(len(ids) - noise, spans, random), _parts(noise, spans, random)
    source: list[tuple[int, int | None]] = []
    target: list[tuple[int, int | None]] = []
    at = 0
    for sentinel, keep, lose in zip(sentinels, kept, lost):
        source += [*((ids[i], i) for i in range(at, at + keep)), (sentinel, None)]
        target += [(sentinel, None), *((ids[i], i) for i in range(at + keep, at + keep + lose))]
        at += int(keep + lose)
    source, target = [*source, (end, None)], [*target, (end, None)]
    return Corrupted([i for i, _ in source], [i for i, _ in target], [p for _, p in source], [p for _, p in target])


def _parts(total: int, count: int, random: np.random.Generator) -> np.ndarray:
    """A random composition of `total` into `count` positive parts."""
    cuts = np.sort(random.choice(np.arange(1, total), count - 1, replace=False))
    return np.diff(np.concatenate([[0], cuts, [total]]))
