"""Do neighbouring tokens go to the same experts? Mixtral's Table 5 in its form.

Neighbours are tokens t and t + 1 of one sequence, never across sequences or documents.

* `repetition, first choice` (Mixtral 2401.04088, Table 5): share of neighbours with e1(t) = e1(t+1); chance 1/E, load-aware
  chance sum_e p_e^2 of the first choices.
* `repetition, any of the chosen` (Table 5's "first or second" for k = 2): share whose chosen sets meet; chance
  1 - C(E-k, k) / C(E, k), load-aware chance: the mean of the null.
* null of both: tokens shuffled within their document, which holds the document's load.
"""

from math import comb
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.decision_sample import Sample, bits, by_unit, shuffles

TABLE5 = "Mixtral 2401.04088, Table 5"
NULL = "tokens shuffled within their document"
SHUFFLES = 99


def chance_of_meeting(experts: int, k: int) -> float:
    """That two random sets of k of E experts meet."""
    return 1 - comb(experts - k, k) / comb(experts, k) if k <= experts else 1.0


def repetition_rows(sample: Sample, subsets: dict[str, Array]) -> list[pd.DataFrame]:
    """Figures per router and subset (names to masks of rows)."""
    orders = list(shuffles(sample.unit, SHUFFLES))
    rows = []
    for where, experts, there, _ in sample.routers():
        repeats = Repeats(sample.chosen[where["router"]], experts)
        left = followed(sample, there)
        hits = repeats(left, left + 1)
        member = np.stack([mask[left] for mask in subsets.values()]).astype(np.float32)  # sums stay exact below 2^24
        null = np.stack([member @ repeats(order[left], order[left + 1]).T for order in orders])
        null /= np.maximum(member.sum(1), 1)[:, None]
        for number, subset in enumerate(subsets):
            mine = member[number] > 0
            if mine.any():
                here = where | {"subset": subset}
                rows.append(_repeated(here, sample, repeats, left[mine], hits[:, mine], null[:, number]))
    return rows


def followed(sample: Sample, there: Array) -> Array:
    """Rows that were decided about, as was the next token of their sequence."""
    looked = np.zeros(len(sample.tokens), dtype=bool)
    looked[there] = True
    left = sample.neighbours
    return left[looked[left] & looked[left + 1]]


class Repeats:
    """Whether two tokens share their first choice, and (where some token has several) any of the chosen."""

    def __init__(self, chosen: Array, experts: int) -> None:
        self.chosen, self.experts = chosen, experts
        self.first, self.sets = np.ascontiguousarray(chosen[:, 0]), bits(chosen, experts)

    def __call__(self, a: Array, b: Array) -> Array:
        """(1 or 2, pairs) as 0 and 1 of the rows `a` and `b`."""
        one = self.first[a]
        same = (one == self.first[b]) & (one >= 0)
        if self.chosen.shape[1] < 2:
            return same[None].astype(np.float32)
        return np.stack([same, np.any([word[a] & word[b] for word in self.sets], axis=0)]).astype(np.float32)


def _repeated(where: Any, sample: Sample, repeats: Repeats, left: Array, hits: Array, null: Array) -> pd.DataFrame:
    chosen, experts, unit = repeats.chosen[left], repeats.experts, sample.unit[left]
    k = max(1, round(float((chosen >= 0).sum(1).mean())))
    load = st.shares(np.bincount(chosen[chosen[:, 0] >= 0, 0], minlength=experts).astype(float))
    forms = [("repetition, first choice", 1 / experts, float((load**2).sum()))]
    if k > 1:
        forms.append(("repetition, any of the chosen", chance_of_meeting(experts, k), float(null[:, 1].mean())))
    frames = []
    for (name, chance, aware), hit, drawn in zip(forms, hits, null.T):
        row: dict[str, Any] = {"null": drawn, "null_name": NULL, "tail": "t", "side": "both", "bounds": (0, 1)}
        row |= {"source": TABLE5, "draws": _ratio(sample.units, unit, hit), "n": len(left), "units": len(np.unique(unit))}
        for against, level in (("random", chance), ("load", aware)):
            frames.append(figures(where, name, hit.mean(dtype=float), estimator=f"against {against}", chance=level, **row))
    return pd.concat(frames, ignore_index=True)


def _ratio(units: int, unit: Array, hits: Array) -> Array:
    """(draws, 1): mean of `hits` when documents are drawn again."""
    both = by_unit(unit, units, np.stack([hits.astype(float), np.ones(len(hits))], axis=1))
    drawn = st.resampled(st.bootstrap_weights(units), both)
    return (drawn[:, 0] / np.maximum(drawn[:, 1], 1))[:, None]
