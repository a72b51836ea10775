"""How many experts a batch wakes: of tokens drawn at random, and of neighbours in a text.

* tokens at random: (1/E) Σ_e 1 − (1 − p_e)^b, p_e the share of tokens for which expert e runs; chance: even load, p_e = k / E.
* neighbours: experts that ran for any of b tokens in a row of one sequence, over E, mean over windows.
Null of the neighbours: tokens shuffled within their document, so that a document's own load explains nothing ("less":
neighbours share experts beyond that).
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.decision_sample import Sample, bits, by_unit, one_hot

SIZES = (2, 8, 32, 128)
NAME = "share of experts active in a batch"
SHUFFLED = "tokens shuffled within documents"
RANDOM = "tokens at random"


def active(taken: Sample, where: dict[str, Any], experts: int, rows: Array, chosen: Array, orders: list[Array]) -> list[Any]:
    """Figures of one router; `orders` shuffle all tokens of the sample within their documents."""
    unit, k = taken.unit[rows], float((chosen >= 0).sum(1).mean())
    sums = np.c_[
        by_unit(unit, taken.units, one_hot(chosen, experts).astype(float)), by_unit(unit, taken.units, np.ones(len(unit)))
    ]
    sums = sums[sums[:, -1] > 0]
    drawn = st.bootstrap_weights(len(sums)) @ sums
    every = np.full((len(taken.tokens), chosen.shape[1]), -1, dtype=chosen.dtype)
    every[rows] = chosen
    words = bits(every, experts)
    made = []
    for size in SIZES:
        common: dict[str, Any] = {"source": "counted", "chance": 1 - (1 - k / experts) ** size, "bounds": (0, 1)}
        at = where | {"subset": f"batch of {size}"}
        made.append(figures(at, NAME, _expected(sums.sum(0), size), estimator=RANDOM, draws=_expected(drawn, size), n=len(rows),
                            units=len(sums), null_name="none: even load is its chance", **common))  # fmt: skip
        made += _neighbours(taken, at, words, experts, size, orders, common)
    return made


def _expected(sums: Array, size: int) -> Array:
    """From sums (..., E + 1) of tokens that each expert ran for, and of all tokens."""
    share = sums[..., :-1] / np.maximum(sums[..., -1:], 1)
    return np.asarray((1 - (1 - np.minimum(share, 1)) ** size).mean(-1))


def _neighbours(
    taken: Sample, at: dict[str, Any], words: Array, experts: int, size: int, orders: list[Array], common: dict[str, Any]
) -> list[pd.DataFrame]:
    starts = _starts(taken, size)
    if not len(starts):
        return []
    window = starts[:, None] + np.arange(size)

    def awake(order: Array | None) -> Array:
        seen = words[:, window] if order is None else words[:, order[window]]
        return np.asarray(np.bitwise_count(np.bitwise_or.reduce(seen, axis=2)).sum(0) / experts)

    found = awake(None)
    unit, there = np.unique(taken.unit[starts], return_inverse=True)
    sums, count = by_unit(there, len(unit), found), by_unit(there, len(unit), np.ones(len(found)))
    weights = st.bootstrap_weights(len(unit))
    draws = (weights @ sums) / np.maximum(weights @ count, 1)
    null = np.array([awake(order).mean() for order in orders])
    return [figures(at, NAME, found.mean(), estimator="neighbours", draws=draws, null=null, null_name=SHUFFLED, tail="t",
                    side="less", n=len(found) * size, units=len(unit), **common)]  # fmt: skip


def _starts(taken: Sample, size: int) -> Array:
    """Rows at which windows of `size` neighbouring tokens begin, one after the other in each sequence."""
    sequence, position = (taken.tokens[c].to_numpy(np.int64) for c in ("sequence", "position"))
    last = np.arange(len(sequence)) + size - 1
    inside = last < len(sequence)
    last = np.minimum(last, len(sequence) - 1)
    whole = inside & (sequence[last] == sequence) & (position[last] == position + size - 1) & (position % size == 0)
    return np.nonzero(whole)[0]
