"""Co-activation: which experts are chosen for the same token?

* `co-activation` (OLMoE 2409.02060, 5.2): N_ij / N_i with N_ij the tokens whose chosen experts hold both; chance
  (k-1)/(E-1). The figure per router is its largest off-diagonal value, and the mean of the largest partner of each expert.
* `released code` (allenai/OLMoE do_correlation_analysis): only experts of neighbouring rank count as a pair, 7 of 28 pairs for
  k = 8; chance 2 (k-1) / k over (E-1).

Null: experts swapped between tokens of a document, which holds every token's k and every document's load of every expert. What
two experts then meet by chance is computed (`statistics.pairs`), not drawn, and has no error of its own. Cells of the frame
`pairs` are tested by a binomial tail about it, of the variance that the held loads leave. p of the
largest is that of the clearest pair times the number of pairs; p of the closest partners that of the mean over experts of each
one's clearest partner, against normal deviates.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ... import statistics as st
from ...statistics import Array
from ...statistics.pairs import left_variance, meetings
from .._shared.answer import figures
from .._shared.arrays.decision_sample import Sample, one_hot

OLMOE = "OLMoE 2409.02060, section 5.2"
CODE = "allenai/OLMoE run_moe_analysis.py, do_correlation_analysis"
DRAWS = 199  # of normal deviates
ENOUGH = 20  # expected meetings from which the variance that loads leave is used
FLOOR = 1e-12  # of a tail that is computed, not fitted
KEPT = 100  # pairs per router in the frame


def together(chosen: Array, experts: int, neighbours: bool = False) -> Array:
    """(E, E) tokens for which both ran, symmetric, 0 on the diagonal; `neighbours`: of neighbouring rank only."""
    width = chosen.shape[1]
    pairs = [(a, b) for a in range(width) for b in range(a + 1, width) if b == a + 1 or not neighbours]
    total = np.zeros(experts * experts)
    for a, b in pairs:
        there = (chosen[:, a] >= 0) & (chosen[:, b] >= 0)
        total += np.bincount(chosen[there, a].astype(np.int64) * experts + chosen[there, b], minlength=experts * experts)
    table = total.reshape(experts, experts)
    return table + table.T


def coactivation_rows(sample: Sample) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Figures per router, and all pairs."""
    rows, cells = [], []
    for where, experts, there, chosen in sample.routers():
        if chosen.shape[1] < 2:
            continue
        expected = expected_meetings(chosen, sample.unit[there], experts)
        by_unit = _tables(chosen, sample.unit[there], sample.units, experts)
        found = _cells(where, chosen, experts, expected)
        rows.append(_figures(where, chosen, experts, by_unit, expected, found["p"].to_numpy()))
        cells.append(found)
    return rows, pd.concat(cells, ignore_index=True) if cells else pd.DataFrame()


def closest_pairs(cells: pd.DataFrame) -> pd.DataFrame:
    """The KEPT pairs of each router that stand out most."""
    if cells.empty:
        return cells
    best = cells.sort_values(["p", "value"], ascending=[True, False]).groupby("router", sort=False).head(KEPT)
    return best.sort_values(["stack", "layer", "router", "p"], ignore_index=True)


def expected_meetings(chosen: Array, unit: Array, experts: int) -> Array:
    """(E, E) tokens expected to hold both, documents and numbers of experts a token held."""
    size, total = (chosen >= 0).sum(1), np.zeros((experts, experts))
    for k in np.unique(size[size > 1]):
        mine, home = chosen[size == k], np.unique(unit[size == k], return_inverse=True)[1]
        there = mine >= 0
        cell = np.repeat(home, k) * experts + mine[there]
        load = np.bincount(cell, minlength=(int(home.max()) + 1) * experts).reshape(-1, experts).astype(float)
        total += meetings(load, np.bincount(home).astype(float), int(k))
    return total


def _tables(chosen: Array, unit: Array, units: int, experts: int) -> Array:
    """(groups, E, E + 1): pairs, and loads in the last column, by document (documents dealt into at most 64 groups)."""
    groups = min(units, 64)
    group = unit % groups
    tables = np.zeros((groups, experts, experts + 1))
    for number in range(groups):
        mine = chosen[group == number]
        tables[number, :, :-1] = together(mine, experts)
        tables[number, :, -1] = one_hot(mine, experts).sum(0)
    return tables


def shares_of(tables: Array, load: Array) -> Array:
    """N_ij / N_i, with 0 where an expert never ran."""
    return tables / np.maximum(load[..., None], 1)


def _figures(where: Any, chosen: Array, experts: int, by_unit: Array, expected: Array, p: Array) -> pd.DataFrame:
    load = one_hot(chosen, experts).sum(0)
    k = float((chosen >= 0).sum(1).mean())
    drawn = st.resampled(st.bootstrap_weights(len(by_unit), 200), by_unit)
    boot = shares_of(drawn[:, :, :-1], drawn[:, :, -1])
    paper, code = (shares_of(together(chosen, experts, neighbours), load) for neighbours in (False, True))
    chance = (k - 1) / max(1, experts - 1)
    common: dict[str, Any] = {"n": len(chosen), "units": len(by_unit)}
    normal = _normal(experts)
    null = shares_of(np.maximum(expected + np.sqrt(expected) * normal, 0), load)
    deviates = np.zeros((experts, experts))
    deviates[np.triu_indices(experts, 1)] = stats.norm.isf(np.clip(p, 1e-300, 1 - 1e-12))
    closest = st.t_tail(_closest(_both(deviates)), _closest(normal))
    tested = {
        "co-activation, largest": (
            _largest,
            float(np.clip(p.min() * len(p), st.FLOOR, 1)),
            "of the clearest pair, times the pairs",
        ),
        "co-activation, mean of closest partners": (_closest, float(closest), f"Student's t through {DRAWS} normal draws"),
    }
    rows = []
    for name, (pick, said, how) in tested.items():
        swap: dict[str, Any] = {"null": pick(null), "null_name": "experts swapped between tokens of a document"}
        ours = figures(where, name, pick(paper), estimator="paper", source=OLMOE, chance=chance, draws=pick(boot),
                       bounds=(0, 1), **swap, **common)  # fmt: skip
        released = figures(where, name, pick(code), estimator="released code", source=CODE, chance=chance * 2 / max(k, 2),
                           null_name="none: given to compare with the paper's figure", **common)  # fmt: skip
        rows += [ours.assign(p=said, p_from=how), released]
    return pd.concat(rows, ignore_index=True)


@lru_cache(maxsize=4)
def _normal(experts: int) -> Array:
    """(DRAWS, E, E) symmetric normal deviates whose rows sum to zero, as loads are held; the diagonal far below."""
    drawn = np.zeros((DRAWS, experts, experts))
    rng, (i, j) = np.random.default_rng(0), np.triu_indices(experts, 1)
    drawn[:, i, j] = rng.standard_normal((DRAWS, len(i)))
    if experts > 3:
        rows = (drawn + np.swapaxes(drawn, 1, 2)).sum(2)
        own = (rows - rows.sum(1, keepdims=True) / (2 * experts - 2)) / (experts - 2)
        drawn[:, i, j] -= own[:, i] + own[:, j]
        drawn *= np.sqrt(len(i) / (len(i) - experts))
    return _both(drawn)


def _both(upper: Array) -> Array:
    """Symmetric, from the upper triangle; the diagonal far below."""
    return np.asarray(upper + np.swapaxes(upper, -1, -2) - 1e3 * np.eye(upper.shape[-1]))


def _largest(table: Array) -> Array:
    return table.max((-1, -2))


def _closest(table: Array) -> Array:
    return table.max(-1).mean(-1)


def _cells(where: Any, chosen: Array, experts: int, expected: Array) -> pd.DataFrame:
    table, load = together(chosen, experts), one_hot(chosen, experts).sum(0)
    i, j = np.triu_indices(experts, 1)
    n, mean = load[i], expected[i, j]
    p = stats.binom.sf(table[i, j] - 1, np.maximum(n, 1), np.clip(mean / np.maximum(n, 1), 1e-12, 1))
    left = left_variance(expected, load, len(chosen))[i, j]
    sharp = stats.norm.sf(stats.norm.isf(np.clip(p, 1e-300, 1 - 1e-12)) / np.sqrt(left))
    p = np.where(mean >= ENOUGH, sharp, p)
    p = np.maximum(p, FLOOR)
    values = {
        "value": table[i, j] / np.maximum(n, 1),
        "reverse": table[i, j] / np.maximum(load[j], 1),
        "null_mean": mean / np.maximum(n, 1),
    }
    return pd.DataFrame(where | {"expert": i, "other": j, "tokens": table[i, j].astype(int)} | values | {"p": p})
