"""Do neighbouring tokens go to the same experts? Mixtral's Table 5 in its form, and routing consistency.

Neighbours are tokens t and t + 1 of one sequence, never across sequences or documents.

* `repetition, first choice` (Mixtral 2401.04088, Table 5): share of neighbours with e1(t) = e1(t+1); chance 1/E, load-aware
  chance sum_e p_e^2 of the first choices.
* `repetition, any of the chosen` (Table 5's "first or second" for k = 2): share whose chosen sets meet; chance
  1 - C(E-k, k) / C(E, k), load-aware chance: 1 - sum over pairs of tokens of one document drawn at random.
* null of both: tokens shuffled within their document, which holds the document's load.

Segments of m tokens, at every position (Liang et al. 2505.16056): f = share of a segment's tokens that chose the expert.

* `SRP`: the best F1 of a router that decides by segment: max over a of 2 sum_{f>=a} f / (#{f >= a} + sum f), over all
  segments and experts of the layer; `expert` is its mean over experts alone. `SRP size`: how many experts that router runs,
  over k.
* `SCH`: hit rate of a cache of rho k experts that evicts those least used in the next m tokens (ties: the larger number).
  Sequences start with an empty cache.
"""

from math import comb
from typing import Any

import numpy as np
import pandas as pd

from . import _statistics as st
from ._answer import figures
from ._sample import Sample, by_unit, one_hot, shuffles
from ._statistics import Array

TABLE5 = "Mixtral 2401.04088, Table 5"
LIANG = "Liang et al. 2505.16056"
NULL = "tokens shuffled within their document"
SHUFFLES = 99
WINDOW = 16
RATIO = 2.0
CACHED = 30_000  # tokens of the cache simulation


def meets(first: Array, second: Array) -> Array:
    """Which rows of two (n, k) arrays of experts have one in common; -1 is none."""
    return ((first[:, :, None] == second[:, None, :]) & (first[:, :, None] >= 0)).any(axis=(1, 2))


def chance_of_meeting(experts: int, k: int) -> float:
    """That two random sets of k of E experts meet."""
    return 1 - comb(experts - k, k) / comb(experts, k) if k <= experts else 1.0


def repetition(sample: Sample, subsets: dict[str, Array]) -> list[pd.DataFrame]:
    """Figures per router and subset (names to masks of rows)."""
    orders = list(shuffles(sample.unit, SHUFFLES))
    rows = []
    for where, experts, there, _ in sample.routers():
        chosen = sample.chosen[where["router"]]
        left = sample.neighbours[np.isin(sample.neighbours, there) & np.isin(sample.neighbours + 1, there)]
        for subset, mask in subsets.items():
            mine = left[mask[left]]
            if len(mine):
                rows.append(_repeated(where | {"subset": subset}, sample, chosen, experts, mine, orders))
    return rows


def _repeated(where: Any, sample: Sample, chosen: Array, experts: int, left: Array, orders: list[Array]) -> pd.DataFrame:
    k = max(1, round(float((chosen[left] >= 0).sum(1).mean())))
    unit = sample.unit[left]
    units = len(np.unique(unit))
    load = st.shares(one_hot(chosen[left, :1], experts).sum(0).astype(float))
    few = orders if len(left) * k * k < 4_000_000 else orders[:19]
    forms = [("repetition, first choice", _same_first, 1 / experts, float((load**2).sum()))]
    if k > 1:
        forms.append(("repetition, any of the chosen", meets, chance_of_meeting(experts, k), np.nan))
    frames = []
    for name, repeats, chance, aware in forms:
        hits = repeats(chosen[left], chosen[left + 1])
        null = [repeats(moved[left], moved[left + 1]).mean() for moved in (chosen[order] for order in few)]
        draws = _ratio(sample.units, unit, hits)
        row: dict[str, Any] = {
            "null": null,
            "null_name": NULL,
            "tail": "count" if len(few) > 50 else "t",
            "side": "both",
            "bounds": (0, 1),
        }
        common: dict[str, Any] = {"source": TABLE5, "draws": draws, "n": len(left), "units": units}
        frames.append(figures(where, name, hits.mean(), estimator="against random", chance=chance, **common, **row))
        aware = float(np.mean(null)) if np.isnan(aware) else aware
        frames.append(figures(where, name, hits.mean(), estimator="against load", chance=aware, **common, **row))
    return pd.concat(frames, ignore_index=True)


def _same_first(first: Array, second: Array) -> Array:
    return (first[:, 0] == second[:, 0]) & (first[:, 0] >= 0)


def _ratio(units: int, unit: Array, hits: Array) -> Array:
    """(draws, 1): mean of `hits` when documents are drawn again."""
    both = by_unit(unit, units, np.stack([hits.astype(float), np.ones(len(hits))], axis=1))
    drawn = st.resampled(st.bootstrap_weights(units), both)
    return (drawn[:, 0] / np.maximum(drawn[:, 1], 1))[:, None]


def segments(sample: Sample, there: Array, m: int) -> Array:
    """Rows that begin m consecutive tokens of one sequence, all decided about."""
    follows = np.zeros(len(sample.tokens), dtype=bool)
    left = sample.neighbours
    follows[left] = np.isin(left, there) & np.isin(left + 1, there)
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


def histograms(sample: Sample, there: Array, chosen: Array, experts: int, m: int) -> Array:
    """(units, experts, m + 1): segments of each document by how many of their tokens chose each expert."""
    start = segments(sample, there, m)
    counts = np.zeros((sample.units, experts, m + 1))
    used = np.concatenate([np.zeros((1, experts), np.int32), np.cumsum(one_hot(chosen, experts), axis=0, dtype=np.int32)])
    for expert in range(experts):
        f = used[start + m, expert] - used[start, expert]
        counts[:, expert] = np.bincount(sample.unit[start] * (m + 1) + f, minlength=sample.units * (m + 1)).reshape(-1, m + 1)
    return counts


def consistency(sample: Sample, m: int = WINDOW, ratio: float = RATIO) -> list[pd.DataFrame]:
    """SRP and SCH of every router; null from a few shuffles within documents."""
    orders = list(shuffles(sample.unit, 7))
    rows = []
    for where, experts, there, mine in sample.routers():
        chosen = sample.chosen[where["router"]]
        found = histograms(sample, there, chosen, experts, m)
        if not found.sum():
            continue
        null = np.stack([histograms(sample, there, chosen[order], experts, m).sum(0) for order in orders])
        k = float((mine >= 0).sum(1).mean())
        rows += _srp(where, found, null, m, k / experts, int(found[:, 0].sum()))
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
        ),
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
