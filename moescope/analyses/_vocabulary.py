"""Specialization by what a token is: its id, the true next id, its patch position, its modality.

For a value x of such an attribute (ids that occur at least 10 times) and an expert e:

* `vocabulary specialization` (OLMoE 2409.02060, 5.4): N_xe / N_x, the share of the tokens x whose chosen experts hold e;
  chance k/E. Per router: the mean over x of the largest, with estimators `top-k` and `first choice`; `released code` is
  allenai/OLMoE's: first choice, every id counted, also those seen once, which alone are worth 1.
* `I(attribute; expert)`: mutual information of x and the first choice, bits; plug-in, and less its mean under the null.

Null: the attribute shuffled among the tokens of a document (holds documents and load). Cells are tested by a binomial tail
about their exact null mean, sum over documents of n_ux n_ue / n_u; the shuffle varies less than a binomial, so p is on the
safe side.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from . import _statistics as st
from ._answer import figures
from ._sample import Sample, shuffles
from ._statistics import Array

LEAST = 10
SHUFFLES = 19
DRAWS = 200
OLMOE = "OLMoE 2409.02060, section 5.4"
NULL = "attribute shuffled among the tokens of a document"


def attributes(sample: Sample) -> dict[str, Array]:
    """Code of every token by attribute, -1 where it has none; only attributes that vary."""
    tokens = sample.tokens
    own = tokens["vocab_id"].to_numpy(float, na_value=np.nan)
    following = np.full(len(tokens), np.nan)
    following[sample.neighbours] = own[sample.neighbours + 1]
    width = tokens["x"].max() + 1 if tokens["x"].notna().any() else 1
    patch = (tokens["y"].astype(float) * float(width) + tokens["x"].astype(float)).to_numpy(float, na_value=np.nan)
    kind = pd.factorize(tokens["kind"])[0].astype(float)
    found = {"input id": own, "next id": following, "patch position": patch, "modality": kind}
    coded = {name: np.where(np.isnan(values), -1, np.nan_to_num(values)).astype(np.int64) for name, values in found.items()}
    return {name: code for name, code in coded.items() if len(np.unique(code[code >= 0])) > 1}


def specialization(sample: Sample, name: str, code: Array) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Per router: its figures, and its cells (x, expert, n, value, expected, p)."""
    orders = list(shuffles(sample.unit, SHUFFLES))
    for where, experts, rows, chosen in sample.routers():
        known = code[rows] >= 0
        if not known.any():
            continue
        nulls = [_shuffled(code, rows, sample.unit, order)[known] for order in orders]
        routed = Routed(_Codes(code[rows][known]), sample.unit[rows][known], chosen[known], experts, sample.units)
        figured = _figures(where | {"subset": name}, routed, [routed.codes.of(n) for n in nulls])
        yield figured, _cells(where, name, routed)


def _shuffled(code: Array, rows: Array, unit: Array, order: Array) -> Array:
    """Codes of `rows` after a shuffle within documents of those that have one."""
    moved = np.full(len(code), -1, dtype=np.int64)
    mine = np.zeros(len(code), dtype=bool)
    mine[rows] = code[rows] >= 0
    source = order[mine[order]]
    home = np.argsort(unit, kind="stable")
    moved[home[mine[home]]] = code[source]
    return moved[rows]


class _Codes:
    """Values numbered from 0, frequent ones apart."""

    def __init__(self, code: Array) -> None:
        self.values, self.index, self.counts = np.unique(code, return_inverse=True, return_counts=True)
        self.frequent = self.counts >= LEAST

    def of(self, code: Array) -> Array:
        return np.searchsorted(self.values, code)


@dataclass(frozen=True)
class Routed:
    """Tokens of one router that have the attribute: their codes, documents and chosen experts."""

    codes: _Codes
    unit: Array
    chosen: Array
    experts: int
    units: int

    def table(self, index: Array, ranks: int | None = None) -> Array:
        """(values, experts): tokens of each value that chose each expert, among the first `ranks` choices."""
        values, total = len(self.codes.values), np.zeros(len(self.codes.values) * self.experts)
        for column in self.chosen[:, :ranks].T:
            there = column >= 0
            total += np.bincount(index[there] * self.experts + column[there], minlength=values * self.experts)
        return total.reshape(values, self.experts)


def largest(table: Array, counts: Array) -> Array:
    """Mean over values (axis -2) of the largest share of an expert (axis -1); counts (..., values)."""
    share = table.max(-1) / np.maximum(counts, 1)
    return share.sum(-1) / np.maximum((counts > 0).sum(-1), 1)


def _figures(where: Any, routed: Routed, nulls: list[Array]) -> pd.DataFrame:
    codes, experts = routed.codes, routed.experts
    often = codes.frequent
    common: dict[str, Any] = {"null_name": NULL, "tail": "t", "units": len(np.unique(routed.unit))}
    every, seen = np.ones(len(often), dtype=bool), int(codes.counts[often].sum())
    k = float((routed.chosen >= 0).sum(1).mean())
    rows = []

    def add(
        name: str, estimator: str, ranks: int | None, which: Array, statistic: Any, source: str, chance: float, draws: Any
    ) -> None:
        values = [statistic(routed.table(index, ranks)[which], codes.counts[which]) for index in (codes.index, *nulls)]
        rows.append(figures(where, name, values[0], estimator=estimator, source=source, chance=chance, draws=draws,
                            null=values[1:], bounds=(0, np.inf), n=int(codes.counts[which].sum()), **common))  # fmt: skip

    name = "vocabulary specialization"
    if seen:
        drawn = [_bootstrap(routed, ranks) for ranks in (None, 1)]
        add(name, "top-k", None, often, largest, OLMOE, k / experts, drawn[0][0])
        add(name, "first choice", 1, often, largest, OLMOE, 1 / experts, drawn[1][0])
    add(name, "released code", 1, every, largest, "allenai/OLMoE run_moe_analysis.py, print_avg", 1 / experts, None)
    if seen:
        add("I(attribute; expert) (bits)", "plug-in", 1, often, _bits, "Shannon 1948", 0.0, drawn[1][1])
        row = rows[-1].copy()
        row["estimator"] = "less null mean"
        row[["value", "ci_low", "ci_high"]] = row[["value", "ci_low", "ci_high"]].sub(row["null_mean"], axis=0)
        rows.append(row.assign(null_mean=0.0))
    return pd.concat(rows, ignore_index=True)


def _bits(table: Array, counts: Array) -> Array:
    return st.mutual_information(table)


def _bootstrap(routed: Routed, ranks: int | None) -> tuple[Array, Array]:
    """(DRAWS, 1) each: the mean largest share, and the information, of frequent values when documents are drawn again."""
    which, experts = routed.codes.frequent, routed.experts
    number, keep, values = np.cumsum(which) - 1, which[routed.codes.index], int(which.sum())
    index, unit, chosen = number[routed.codes.index[keep]], routed.unit[keep], routed.chosen[keep, :ranks]
    cells = _by_unit(np.where(chosen >= 0, index[:, None] * experts + chosen, -1), unit, routed.units, values * experts)
    counts = _by_unit(index[:, None], unit, routed.units, values)
    weights = st.bootstrap_weights(routed.units, DRAWS)
    drawn: tuple[list[Array], list[Array]] = ([], [])
    for part in np.array_split(weights, max(1, DRAWS * values * experts // 10_000_000)):
        table = np.asarray((cells.T @ part.T).T).reshape(-1, values, experts)
        drawn[0].append(largest(table, np.asarray((counts.T @ part.T).T)))
        drawn[1].append(st.mutual_information(table))
    return np.concatenate(drawn[0])[:, None], np.concatenate(drawn[1])[:, None]


def _by_unit(cell: Array, unit: Array, units: int, cells: int) -> Any:
    """Sparse (units, cells): how often each cell occurs in each document; -1 is left out."""
    row = np.repeat(unit, cell.shape[1])[cell.ravel() >= 0]
    column = cell.ravel()[cell.ravel() >= 0]
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(units, cells))


def _cells(where: Any, name: str, routed: Routed) -> pd.DataFrame:
    codes, unit = routed.codes, routed.unit
    counts = _by_unit(codes.index[:, None], unit, routed.units, len(codes.values))
    per_expert = np.asarray(_by_unit(routed.chosen, unit, routed.units, routed.experts).todense())
    share = per_expert / np.maximum(np.bincount(unit, minlength=routed.units), 1)[:, None]
    expected = np.asarray(counts.T @ share)[codes.frequent]
    table = routed.table(codes.index)[codes.frequent]
    n = codes.counts[codes.frequent][:, None]
    documents = np.asarray((counts > 0).sum(0)).ravel()[codes.frequent]
    p = stats.binom.sf(table - 1, n, np.clip(expected / np.maximum(n, 1), 0, 1))
    x, e = np.indices(table.shape).reshape(2, -1)
    columns = {"attribute": name, "value_id": codes.values[codes.frequent][x], "expert": e, "n": n[x, 0], "units": documents[x]}
    return pd.DataFrame(where | columns | {"value": (table / n).ravel(), "null_mean": (expected / n).ravel(), "p": p.ravel()})
