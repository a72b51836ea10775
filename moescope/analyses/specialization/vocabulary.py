"""Specialization by what a token is: its id, the true next id, the predicted id, its patch position, its modality.

The predicted id is had where tokens have a label `predicted_id`: the vocabulary id with the largest logit after that token.

For a value x of such an attribute (ids that occur at least 10 times) and an expert e:

* `vocabulary specialization` (OLMoE 2409.02060, 5.4): N_xe / N_x, the share of the tokens x whose chosen experts hold e;
  chance k/E. Per router: the mean over x of the largest, with estimators `top-k` and `first choice`; `released code` is
  allenai/OLMoE's: first choice, every id counted, also those seen once, which alone are worth 1.
* `I(attribute; expert)`: mutual information of x and the first choice, bits; plug-in, and less its mean under the null.

Null: the attribute shuffled among the tokens of a document (holds documents and load); no token is followed by itself, so that
the next id is never the token's own one. Cells are tested by a binomial tail about their exact null mean, sum over documents of
n_ux n_ue / n_u (less what is the tokens' own); the shuffle varies less than a binomial, so p is on the safe side. A mean of
largest shares is skewed: its tail is as skewed as that can be (`statistics.skew_of_largest`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.decision_sample import Sample, shuffles
from .attributes import own_code, preceding, shuffled

LEAST = 10
SHUFFLES = 19
DRAWS = 200
OLMOE = "OLMoE 2409.02060, section 5.4"
TESTED = ("top-k", "plug-in")  # the other forms are there to be compared
NULL = "attribute shuffled among the tokens of a document"


def specialization(sample: Sample, name: str, code: Array) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Per router: its figures, and its cells (x, expert, n, value, expected, p)."""
    orders = list(shuffles(sample.unit, SHUFFLES))
    before = preceding(sample) if name == "next id" else None
    prepared: dict[bytes, tuple[Codes, list[Array], Array | None]] = {}  # often the same for all routers
    for where, experts, rows, chosen in sample.routers():
        known = code[rows] >= 0
        if not known.any():
            continue
        mine = np.zeros(len(code), dtype=bool)
        mine[rows[known]] = True
        if (key := mine.tobytes()) not in prepared:
            codes = Codes(code[mine])
            moved = [shuffled(codes.index, mine, sample.unit, order, before) for order in orders]
            prepared = {key: (codes, moved, None if before is None else own_code(codes.index, mine, before))}
        codes, nulls, own = prepared[key]
        routed = Routed(codes, sample.unit[mine], chosen[known], experts, sample.units, own)
        yield _figures(where | {"subset": name}, routed, nulls), _cells(where, name, routed)


class Codes:
    """Values numbered from 0, frequent ones apart."""

    def __init__(self, code: Array) -> None:
        self.values, self.index, self.counts = np.unique(code, return_inverse=True, return_counts=True)
        self.frequent = self.counts >= LEAST


@dataclass(frozen=True)
class Routed:
    """Tokens of one router that have the attribute: their codes, documents and chosen experts; `own`: see `own_code`."""

    codes: Codes
    unit: Array
    chosen: Array
    experts: int
    units: int
    own: Array | None = None

    def tables(self, index: Array) -> tuple[Array, Array]:
        """(values, experts) twice: tokens of each value whose first choice is the expert, and that chose it at all."""
        cells, shape = len(self.codes.values) * self.experts, (len(self.codes.values), self.experts)
        by_rank = []
        for column in self.chosen.T:
            there = column >= 0
            cell = index * self.experts + column if there.all() else index[there] * self.experts + column[there]
            by_rank.append(np.bincount(cell, minlength=cells).reshape(shape))
        return by_rank[0], np.sum(by_rank, axis=0)


def largest(table: Array, counts: Array) -> Array:
    """Mean over values (axis -2) of the largest share of an expert (axis -1); counts (..., values)."""
    share = table.max(-1) / np.maximum(counts, 1)
    return share.sum(-1) / np.maximum((counts > 0).sum(-1), 1)


def _figures(where: Any, routed: Routed, nulls: list[Array]) -> pd.DataFrame:
    codes, experts = routed.codes, routed.experts
    often, every = codes.frequent, np.ones(len(codes.values), dtype=bool)
    common: dict[str, Any] = {"null_name": NULL, "tail": "t", "units": len(np.unique(routed.unit)), "bounds": (0, np.inf)}
    k = float((routed.chosen >= 0).sum(1).mean())
    tables = dict(zip((1, None), zip(*(routed.tables(index) for index in (codes.index, *nulls)))))
    rows = []

    def add(name: str, form: str, ranks: int | None, which: Array, statistic: Any, **more: Any) -> None:
        value, *null = [statistic(table[which], codes.counts[which]) for table in tables[ranks]]
        n = int(codes.counts[which].sum())
        skew = st.skew_of_largest(codes.counts[which]) if statistic is largest else 0.0
        row = figures(where, name, value, estimator=form, null=null, n=n, skew=skew, **more, **common)
        rows.append(row if form in TESTED else row.assign(p=np.nan, p_from=""))  # one test a question

    name, code = "vocabulary specialization", "allenai/OLMoE run_moe_analysis.py, print_avg"
    if often.any():
        first = redrawn(routed, 1)
        every_rank = first if routed.chosen.shape[1] == 1 else redrawn(routed, information=False)
        add(name, "top-k", None, often, largest, source=OLMOE, chance=k / experts, draws=every_rank[0])
        add(name, "first choice", 1, often, largest, source=OLMOE, chance=1 / experts, draws=first[0])
    add(name, "released code", 1, every, largest, source=code, chance=1 / experts)
    if often.any():
        add("I(attribute; expert) (bits)", "plug-in", 1, often, _bits, source="Shannon 1948", chance=0.0, draws=first[1])
        value, *null = (_bits(table[often], codes.counts[often]) for table in tables[1])
        low, high = st.information_interval(value - np.mean(null, keepdims=True), first[1], np.array(null), common["units"])
        row = rows[-1].assign(estimator="less null mean", value=value - np.mean(null), null_mean=0.0)
        rows.append(row.assign(ci_low=low, ci_high=high))
    return pd.concat(rows, ignore_index=True)


def _bits(table: Array, counts: Array) -> Array:
    return st.mutual_information(table)


def redrawn(routed: Routed, ranks: int | None = None, draws: int = DRAWS, information: bool = True) -> tuple[Array, Array]:
    """(draws, 1) each: the mean largest share, and the information (else 0), of frequent values, documents drawn again.

    Only cells that occur are drawn; their counts are whole numbers, so that n log2 n comes from a table.
    """
    which, experts = routed.codes.frequent, routed.experts
    keep, number = which[routed.codes.index], np.cumsum(which) - 1
    index, unit, chosen = number[routed.codes.index[keep]], routed.unit[keep], routed.chosen[keep, :ranks]
    cell = np.where(chosen >= 0, index[:, None] * experts + chosen, -1)
    occurs = np.zeros(int(which.sum()) * experts, dtype=bool)
    occurs[cell[cell >= 0]] = True
    (cells,) = np.nonzero(occurs)
    cell = np.where(cell >= 0, (np.cumsum(occurs) - 1)[cell], -1)
    value, first = np.unique(cells // experts, return_index=True)
    counted = [_by_unit(cell, unit, routed.units, len(cells)), _by_unit(index[:, None], unit, routed.units, int(which.sum()))]
    sums = [_by_unit((cells // by)[:, None] if by else (cells % experts)[:, None], np.arange(len(cells)), len(cells), size)
            for by, size in ((experts, int(which.sum())), (0, experts))]  # fmt: skip
    found = []
    for part in np.array_split(st.bootstrap_weights(routed.units, draws), max(1, draws * len(cells) // 4_000_000)):
        n, seen = ((c.T @ part.T.astype(np.float32)) for c in counted)
        share = np.maximum.reduceat(n, first, axis=0) / np.maximum(seen[value], 1)
        most = share.sum(0) / np.maximum((seen > 0).sum(0), 1)
        found.append(np.stack([most, np.zeros_like(most)], axis=1))
        if not information:
            continue
        x_log_x = _x_log_x(int(n.sum(0).max()))
        joint, *margins = [x_log_x[m.astype(np.int64)].sum(0) for m in (n, *(s.T @ n for s in sums))]
        total = n.sum(0)
        bits = (joint - sum(margins) + x_log_x[total.astype(np.int64)]) / np.maximum(total, 1)
        found[-1][:, 1] = np.maximum(bits, 0)
    both = np.concatenate(found)
    return both[:, :1], both[:, 1:]


def _x_log_x(most: int) -> Array:
    n = np.arange(most + 1)
    return np.asarray(n * np.log2(np.maximum(n, 1)))


def _by_unit(cell: Array, unit: Array, units: int, cells: int) -> Any:
    """Sparse (units, cells): how often each cell occurs in each document; -1 is left out."""
    row = np.repeat(unit, cell.shape[1])[cell.ravel() >= 0]
    column = cell.ravel()[cell.ravel() >= 0]
    return sparse.csr_matrix((np.ones(len(row), dtype=np.float32), (row, column)), shape=(units, cells))


def _cells(where: Any, name: str, routed: Routed) -> pd.DataFrame:
    codes, unit = routed.codes, routed.unit
    counts = _by_unit(codes.index[:, None], unit, routed.units, len(codes.values))
    expected = _expected(routed, counts)[codes.frequent]
    table = routed.tables(codes.index)[1][codes.frequent]
    n = codes.counts[codes.frequent][:, None]
    documents = np.asarray((counts > 0).sum(0)).ravel()[codes.frequent]
    p = stats.binom.sf(table - 1, n, np.clip(expected / np.maximum(n, 1), 0, 1))
    x, e = np.indices(table.shape).reshape(2, -1)
    columns = {"attribute": name, "value_id": codes.values[codes.frequent][x], "expert": e, "n": n[x, 0], "units": documents[x]}
    return pd.DataFrame(where | columns | {"value": (table / n).ravel(), "null_mean": (expected / n).ravel(), "p": p.ravel()})


def _expected(routed: Routed, counts: Any) -> Array:
    """(values, experts): exact mean under the null, from `counts` (documents, values)."""
    size = np.bincount(routed.unit, minlength=routed.units)[routed.unit]
    own = np.full(len(size), -1) if routed.own is None else routed.own
    weight = 1 / np.where(own >= 0, size - 1, size)  # of every token that it may be followed by
    row, rank = np.nonzero(routed.chosen >= 0)
    expert, by = routed.chosen[row, rank], weight[row]
    share = np.bincount(routed.unit[row] * routed.experts + expert, by, minlength=routed.units * routed.experts)
    found = np.asarray(counts.T @ share.reshape(routed.units, routed.experts))
    itself = own[row] >= 0
    cell = own[row][itself] * routed.experts + expert[itself]
    return found - np.bincount(cell, by[itself], minlength=found.size).reshape(found.shape)
