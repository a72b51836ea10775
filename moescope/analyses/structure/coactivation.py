"""Co-activation: which experts are chosen for the same token?

* `co-activation` (OLMoE 2409.02060, 5.2): N_ij / N_i with N_ij the tokens whose chosen experts hold both; chance
  (k-1)/(E-1). The figure per router is its largest off-diagonal value, and the mean of the largest partner of each expert.
* `released code` (allenai/OLMoE do_correlation_analysis): only experts of neighbouring rank count as a pair, 7 of 28 pairs for
  k = 8; chance 2 (k-1) / k over (E-1).

Null: experts swapped between tokens of a document, which holds every token's k and every document's load of every expert.
Cells of the frame `pairs` are tested by a binomial tail about their mean under the swaps.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.decision_sample import Sample, one_hot

OLMOE = "OLMoE 2409.02060, section 5.2"
CODE = "allenai/OLMoE run_moe_analysis.py, do_correlation_analysis"
NULLS = 16
SWAPPED = 8_000  # tokens of the null
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


def swapped(chosen: Array, unit: Array, rounds: int, rng: Any) -> Array:
    """`chosen` after `rounds` of trades between random tokens of a document; nobody gets an expert twice."""
    chosen = chosen.copy()
    n, width = chosen.shape
    for _ in range(rounds):
        order = np.argsort(unit + rng.random(n))
        a, b = order[:-1:2], order[1::2]
        a, b = a[unit[a] == unit[b]], b[unit[a] == unit[b]]
        i, j = rng.integers(0, width, (2, len(a)))
        x, y = chosen[a, i], chosen[b, j]
        free = (x >= 0) & (y >= 0) & ~(chosen[a] == y[:, None]).any(1) & ~(chosen[b] == x[:, None]).any(1)
        chosen[a[free], i[free]], chosen[b[free], j[free]] = y[free], x[free]
    return chosen


def coactivation_rows(sample: Sample) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Figures per router, and the pairs that stand out most."""
    rows, cells = [], []
    for where, experts, there, chosen in sample.routers():
        if chosen.shape[1] < 2:
            continue
        null = _null(chosen, sample.unit[there], experts)
        by_unit = _tables(chosen, sample.unit[there], sample.units, experts)
        rows.append(_figures(where, chosen, experts, by_unit, null))
        cells.append(_cells(where, chosen, experts, null.mean(0)))
    if not cells:
        return rows, pd.DataFrame()
    pairs = pd.concat(cells, ignore_index=True)
    pairs["q"] = st.fdr(pairs["p"].to_numpy(float))
    best = pairs.sort_values(["p", "value"], ascending=[True, False]).groupby("router", sort=False).head(KEPT)
    return rows, best.sort_values(["stack", "layer", "router", "p"], ignore_index=True)


def _null(chosen: Array, unit: Array, experts: int) -> Array:
    """(NULLS, E, E): tables of swapped choices, scaled to the whole sample."""
    rng = np.random.default_rng(0)
    keep = np.sort(rng.permutation(len(chosen))[:SWAPPED]) if len(chosen) > SWAPPED else np.arange(len(chosen))
    state, home, tables = chosen[keep], unit[keep], []
    for draw in range(NULLS):
        state = swapped(state, home, (5 if draw == 0 else 1) * chosen.shape[1], rng)
        tables.append(together(state, experts))
    return np.stack(tables) * (len(chosen) / max(1, len(keep)))


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


def _figures(where: Any, chosen: Array, experts: int, by_unit: Array, null: Array) -> pd.DataFrame:
    load = one_hot(chosen, experts).sum(0)
    k = float((chosen >= 0).sum(1).mean())
    drawn = st.resampled(st.bootstrap_weights(len(by_unit), 200), by_unit)
    boot, base = shares_of(drawn[:, :, :-1], drawn[:, :, -1]), shares_of(null, load[None])
    paper, code = (shares_of(together(chosen, experts, neighbours), load) for neighbours in (False, True))
    chance = (k - 1) / max(1, experts - 1)
    common: dict[str, Any] = {"n": len(chosen), "units": len(by_unit), "bounds": (0, 1)}
    swap: dict[str, Any] = {"null_name": "experts swapped between tokens of a document", "tail": "t"}
    rows = []
    for name, pick in (("co-activation, largest", _largest), ("co-activation, mean of closest partners", _closest)):
        rows.append(
            figures(
                where,
                name,
                pick(paper),
                estimator="paper",
                source=OLMOE,
                chance=chance,
                draws=pick(boot),
                null=pick(base),
                **swap,
                **common,
            )
        )
        rows.append(
            figures(
                where,
                name,
                pick(code),
                estimator="released code",
                source=CODE,
                chance=chance * 2 / max(k, 2),
                n=len(chosen),
                units=len(by_unit),
                null_name="none: given to compare with the paper's figure",
            )
        )
    return pd.concat(rows, ignore_index=True)


def _largest(table: Array) -> Array:
    return table.max((-1, -2))


def _closest(table: Array) -> Array:
    return table.max(-1).mean(-1)


def _cells(where: Any, chosen: Array, experts: int, expected: Array) -> pd.DataFrame:
    table, load = together(chosen, experts), one_hot(chosen, experts).sum(0)
    i, j = np.triu_indices(experts, 1)
    n, mean = load[i], expected[i, j]
    p = stats.binom.sf(table[i, j] - 1, np.maximum(n, 1), np.clip(mean / np.maximum(n, 1), 1e-12, 1))
    values = {
        "value": table[i, j] / np.maximum(n, 1),
        "reverse": table[i, j] / np.maximum(load[j], 1),
        "null_mean": mean / np.maximum(n, 1),
    }
    return pd.DataFrame(where | {"expert": i, "other": j, "tokens": table[i, j].astype(int)} | values | {"p": p})
