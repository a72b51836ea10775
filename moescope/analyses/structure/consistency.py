"""Do the experts of one token serve the next ones too? Routing consistency.

Segments of m tokens, at every position (Liang et al. 2505.16056): f = share of a segment's tokens that chose the expert.

* `SRP`: the best F1 of a router that decides by segment: max over a of 2 sum_{f>=a} f / (#{f >= a} + sum f), over all
  segments and experts of the layer; `expert` is its mean over experts alone. `SRP size`: how many experts that router runs,
  over k.
* `SCH`: hit rate of a cache of rho k experts that evicts those least used in the next m tokens (ties: the larger number).
  Sequences start with an empty cache.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.decision_sample import Sample, by_unit, one_hot, shuffles
from .repetition import NULL, followed

LIANG = "Liang et al. 2505.16056"
WINDOW = 16
RATIO = 2.0
CACHED = 30_000  # tokens of the cache simulation
CELLS = 8_000_000  # of the sliding windows in memory


def segments(sample: Sample, there: Array, m: int) -> Array:
    """Rows that begin m consecutive tokens of one sequence, all decided about."""
    follows = np.zeros(len(sample.tokens), dtype=bool)
    follows[followed(sample, there)] = True
    runs = np.concatenate([[0], np.cumsum(follows)])
    start = np.arange(len(follows) - m + 1)
    return start[runs[start + m - 1] - runs[start] == m - 1]


def srp(histogram: Array) -> tuple[Array, Array]:
    """Best F1, and the ratio of experts run, from (..., m + 1) numbers of segments by how many tokens chose the expert."""
    m = histogram.shape[-1] - 1
    f = np.arange(m + 1) / m
    tail = np.cumsum(histogram[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    hit = np.cumsum((histogram * f)[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    total = (histogram * f).sum(-1, keepdims=True)
    score = np.divide(2 * hit, tail + total, out=np.zeros(hit.shape), where=tail + total > 0)
    best = score.argmax(-1)[..., None]
    size = np.take_along_axis(tail, best, -1)[..., 0] / np.maximum(total[..., 0], 1e-12)
    return np.take_along_axis(score, best, -1)[..., 0], size


def histograms(start: Array, chosen: Array, experts: int, m: int, unit: Array | None = None) -> Array:
    """(units, experts, m + 1): segments (rows `start`) of each document by how many of their tokens chose each expert.

    Without `unit` (tokens,) all are one document.
    """
    group = np.zeros(len(chosen), dtype=int) if unit is None else unit
    counts = np.zeros((int(group.max()) + 1, experts * (m + 1)))
    shift = (np.arange(experts) * (m + 1)).astype(np.int32)
    for part in np.array_split(start, max(1, len(start) * experts // CELLS)):
        f = window_sums(one_hot(chosen[part[0] : part[-1] + m], experts), m)[part - part[0]]
        order = np.argsort(group[part], kind="stable")
        for number, first, end in _runs(group[part][order]):
            mine = f if end - first == len(f) else f[order[first:end]]
            counts[number] += np.bincount((mine + shift).ravel(), minlength=counts.shape[1])
    return counts.reshape(len(counts), experts, m + 1)


def _runs(values: Array) -> Iterator[tuple[int, int, int]]:
    """Different values of a sorted array, and where each begins and ends."""
    found, begin = np.unique(values, return_index=True)
    for value, (first, end) in zip(found, pairwise([*begin, len(values)])):
        yield int(value), int(first), int(end)


def window_sums(hot: Array, m: int) -> Array:
    """(rows - m + 1, ...): sums of m consecutive rows of booleans, by doubling."""
    rows = len(hot) - m + 1
    power: Array = hot.astype(np.uint8 if m < 256 else np.int32)
    total: Array = np.zeros((rows, *hot.shape[1:]), dtype=power.dtype)
    done = 0
    for bit in range(m.bit_length()):
        if m >> bit & 1:
            total = np.add(total, power[done : done + rows])
            done += 1 << bit
        if m >> bit > 1:
            power = np.add(power[: len(power) - (1 << bit)], power[1 << bit :])
    return total


def consistency_rows(sample: Sample, m: int = WINDOW, ratio: float = RATIO) -> list[pd.DataFrame]:
    """SRP and SCH of every router; null from a few shuffles within documents."""
    orders = list(shuffles(sample.unit, 7))
    rows = []
    for where, experts, there, mine in sample.routers():
        chosen = sample.chosen[where["router"]]
        start = segments(sample, there, m)
        if not len(start):
            continue
        found = histograms(start, chosen, experts, m, sample.unit)
        null = np.concatenate([histograms(start, chosen[order], experts, m) for order in orders])
        k = float((mine >= 0).sum(1).mean())
        rows += _srp(where, found, null, m, k / experts, len(start))
        rows.append(_sch(where, sample, chosen, experts, orders, m, ratio, max(1, round(k))))
    return rows


def _srp(where: Any, found: Array, null: Array, m: int, share: float, n: int) -> list[pd.DataFrame]:
    units = int((found.sum((1, 2)) > 0).sum())
    drawn = st.resampled(st.bootstrap_weights(len(found)), found)
    total = found.sum(0)
    common: dict[str, Any] = {"source": f"{LIANG}; m = {m}", "null_name": NULL, "tail": "t", "n": n, "units": units}
    layer, alone = (lambda h: srp(h.sum(-2)), lambda h: srp(h)[0].mean(-1))
    even = 2 * share / (1 + share)  # every expert always
    row: dict[str, Any] = {"chance": even, "bounds": (0, 1), **common}
    return [
        figures(where, "SRP", layer(total)[0], estimator="layer", draws=layer(drawn)[0], null=layer(null)[0], **row),
        figures(where, "SRP", alone(total), estimator="expert", draws=alone(drawn), null=alone(null), **row),
        figures(
            where,
            "SRP size",
            layer(total)[1],
            estimator="layer",
            draws=layer(drawn)[1],
            null=layer(null)[1],
            side="less",
            **common,
        ).assign(p=np.nan, p_from=""),  # where a curve is highest is a whole number, which no tail fits
    ]


def _sch(
    where: Any, sample: Sample, chosen: Array, experts: int, orders: list[Array], m: int, ratio: float, k: int
) -> pd.DataFrame:
    size = min(experts, round(ratio * k))
    sequence = sample.tokens["sequence"].to_numpy()
    end = len(sequence) if len(sequence) <= CACHED else int(np.searchsorted(sequence, sequence[CACHED], side="right"))
    hits = cache_hits(sequence[:end], one_hot(chosen[:end], experts), size, m)
    null = [_total(cache_hits(sequence[:end], one_hot(chosen[order[:end]], experts), size, m)) for order in orders[:3]]
    both = by_unit(sample.unit[:end], sample.units, hits.astype(float))
    drawn = st.resampled(st.bootstrap_weights(sample.units), both)
    return figures(
        where,
        "SCH",
        _total(hits),
        estimator=f"cache of {ratio:g} k",
        source=f"{LIANG}; m = {m}",
        chance=size / experts,
        draws=drawn[:, 0] / np.maximum(drawn[:, 1], 1),
        null=null,
        null_name=NULL,
        tail="t",
        bounds=(0, 1),
        n=int(hits[:, 1].sum()),
        units=int((both[:, 1] > 0).sum()),
    )


def _total(hits: Array) -> float:
    return float(hits[:, 0].sum() / max(1, hits[:, 1].sum()))


def cache_hits(sequence: Array, hot: Array, size: int, m: int) -> Array:
    """(tokens, 2): experts found in the cache, and experts asked for, per token; all sequences step by step at once."""
    ids, start, length = np.unique(sequence, return_index=True, return_counts=True)
    used = np.concatenate([np.zeros((1, hot.shape[1]), np.int32), np.cumsum(hot, axis=0, dtype=np.int32)])
    cache = np.zeros((len(ids), hot.shape[1]), dtype=bool)
    hits = np.zeros((len(sequence), 2))
    for step in range(int(length.max(initial=0))):
        (live,) = np.nonzero(length > step)
        now = start[live] + step
        hits[now, 0] = (cache[live] & hot[now]).sum(1)
        hits[now, 1] = hot[now].sum(1)
        soon = used[np.minimum(now + 1 + m, start[live] + length[live])] - used[now + 1]
        here = cache[live] | hot[now]
        worth = np.where(here, 2 * soon + 1 + 2 * (m + 1) * hot[now], -1)  # what this token needs is not evicted for it
        keep = np.argsort(-worth, axis=1, kind="stable")[:, :size]
        kept = np.zeros_like(here)
        np.put_along_axis(kept, keep, True, axis=1)
        cache[live] = kept & here
    return hits
