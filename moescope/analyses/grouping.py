"""Shared grouping: which layers of two models put the same tokens together, whatever their experts are called?

For a router A of this run and a router B of the other, over the tokens both decided about: I(A; B), the mutual information of
their first choices, with Miller's correction (Miller 1955), over the mean of the two entropies (the arithmetic form of
normalized mutual information; Vinh, Epps & Bailey 2010, JMLR 11, Table 2). 1: the same groups under any names; 0: independent.
Expert numbers play no part, so models of other families, sizes and seeds can be compared, if they read the same tokens.

Null: the other run's choices shuffled among the tokens of a document: what two routers share that only know the document. It
is as skewed as the chi-square with (A - 1)(B - 1) degrees that information is where nothing is shared (Wilks 1938).
Intervals, for the partner that a router shares most with: bootstrap over documents; not over the choice of the partner.
"""

import math

import numpy as np
import pandas as pd

from .. import statistics as st
from ..errors import AnalysisError
from ..statistics import Array
from ..store import Store
from ..words import RunNumber
from ._shared.answer import Answer, Chart, few_units, figures, gather, queries
from ._shared.arrays.decision_sample import Sample, shuffles
from ._shared.arrays.matched_tokens import read_alike, twins
from ._shared.chart_forms import heatmap
from ._shared.scope import Scope, place, scope
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import Verdict, analyze, verdict

NAME = "shared grouping (of the mean entropy)"
SOURCE = "NMI, arithmetic mean, Miller 1955 corrected"
MOST = 2_000_000  # assignments of each run
SHUFFLES, DRAWS, GROUPS = 19, 100, 64


def run(store: Store, run: int | None = None, other: RunNumber | None = None) -> Answer:
    """This run (newest) against `other` (default: another run that shares inputs, of another family where there is one)."""
    here, there, mine, others, rows_here, rows_there, notes = twins(store, run, other, _partner, MOST)
    for one in (here, there):
        one.need_ranks("shared grouping")
    unit = mine.unit[rows_here]
    orders = list(shuffles(unit, SHUFFLES))
    ours, theirs = _first(mine, rows_here), _first(others, rows_there)
    rows = [row for router in ours for row in _row(here, there, router, ours[router], theirs, unit, orders)]
    if not rows:
        raise AnalysisError(f"runs {here.run} and {there.run} have no token about which routers of both decided")
    frame = gather(rows)
    sql = {"figures": mine.sql, "figures, other run": others.sql}
    said = _verdict(frame, here.run, there.run)
    return Answer("grouping", "Shared grouping", said, here.run, {"figures": frame}, sql, notes + few_units(frame), charts)


def beside(store: Store, run: int, other: int | None = None) -> list[int]:
    """The run that is compared with."""
    return [other if other is not None else _partner(scope(store, run))]


def _partner(here: Scope) -> int:
    rows = here.store.rows(
        f"""select b.run from sequences a join sequences b using (source, source_row, part, beam, stack)
join runs r on r.run = b.run where a.run = {here.run} and b.run <> a.run
group by b.run, r.model order by r.model = (select model from runs where run = {here.run}), count(*) desc, b.run desc"""
    )
    if not rows and (alike := read_alike(here, family=False)):
        return alike[0]
    if not rows:
        raise AnalysisError(
            f"no other run of {here.store.path} read the inputs of run {here.run} (same source, row and part); trace the same "
            "data with the other model into this store"
        )
    return int(rows[0][0])


def _first(taken: Sample, rows: Array) -> dict[int, Array]:
    """First choices of every router that decided about some of these rows; -1 where it did not."""
    found = {router: chosen[rows, 0].astype(np.int64) for router, chosen in taken.chosen.items()}
    return {router: first for router, first in found.items() if (first >= 0).any()}


def normalized(table: Array) -> Array:
    """Corrected mutual information of (..., A, B) counts over the mean of both entropies, at most 1; 0 where both are 0."""
    half = (st.entropy(table.sum(-1)) + st.entropy(table.sum(-2))) / 2
    information = st.miller_madow(table)
    return np.minimum(np.divide(information, half, out=np.zeros(np.shape(half)), where=half > 0), 1)


def _row(
    here: Scope, there: Scope, router: int, mine: Array, theirs: dict[int, Array], unit: Array, orders: list[Array]
) -> list[pd.DataFrame]:
    """One router with every router of the other run that saw its tokens."""
    made: dict[int, tuple[Array, Array, list[float]]] = {}
    for partner, other in theirs.items():
        both = (mine >= 0) & (other >= 0)
        if both.sum() > 1:
            null = [float(normalized(_table(mine, other[order]))) for order in orders]
            made[partner] = both, _table(mine, other), null
    values = {partner: float(normalized(table)) for partner, (_, table, _) in made.items()}
    best = max(values, key=values.__getitem__, default=None)
    rows = []
    for partner, (both, table, null) in made.items():
        row = there.routers.loc[partner]
        where = place(here.routers.loc[router]) | {"subset": f"{row['stack']} {row['layer']} of run {there.run}"}
        draws = _draws(mine, theirs[partner], unit) if partner == best else None
        rows.append(
            figures(
                where, NAME, values[partner], source=SOURCE, chance=0.0, draws=draws, null=null, tail="t", skew=_skew(table),
                null_name="the other run's choices shuffled within documents", bounds=(0, 1), n=int(table.sum()),
                units=len(np.unique(unit[both])),
            )
        )  # fmt: skip
    return rows


def _skew(table: Array) -> float:
    """Of the null of a table (A, B) of counts: sqrt(8 / degrees)."""
    rows, columns = (int((table.sum(axis) > 0).sum()) - 1 for axis in (0, 1))
    return math.sqrt(8 / max(rows * columns, 1))


def _table(mine: Array, other: Array, rows: Array | slice = slice(None)) -> Array:
    """Counts of pairs of first choices."""
    a, b = mine[rows], other[rows]
    keep = (a >= 0) & (b >= 0)
    wide = int(other.max()) + 1
    shape = int(mine.max()) + 1, wide
    return np.bincount(a[keep] * wide + b[keep], minlength=shape[0] * shape[1]).reshape(shape)


def _draws(mine: Array, other: Array, unit: Array) -> Array:
    """(draws, 1): the measure over documents drawn anew, dealt into at most GROUPS."""
    _, dealt = np.unique(unit, return_inverse=True)
    dealt = dealt % GROUPS
    tables = np.stack([_table(mine, other, dealt == group) for group in range(int(dealt.max()) + 1)])
    return normalized(st.resampled(st.bootstrap_weights(len(tables), DRAWS), tables))[:, None]


def _verdict(frame: pd.DataFrame, run: int, other: int) -> Verdict:
    ranked = frame.sort_values("value", ascending=False, kind="stable")
    top, found = ranked.iloc[0], int((frame["q"] <= saying.FDR).sum())
    stack, _, number = top["subset"].partition(" of ")[0].rpartition(" ")
    best = f"{stack} layer {number}".strip()
    beyond = "more than" if found else "no more than"
    follows = (
        f"The layers of runs {run} and {other} put tokens together {beyond} documents alone would give: most "
        f"{saying.layer(top, frame)} of run {run} and {best} of run {other}, which share {saying.amount(top, '%')} of their "
        f"information, against {saying.number(100 * max(top['null_mean'], 0.0))} % by documents alone"
    )
    limits = "it does not show that experts of one number are alike, and the interval leaves out the choice of the pair"
    return verdict(follows, top, frame, limits, ranked, analyze("specialization"), "layer pair")


def charts(answer: Answer) -> dict[str, Chart]:
    """Layer by layer."""
    frame = answer.figures(NAME)
    other = frame["subset"].iloc[0].partition(" of ")[2]
    sql = queries(answer.sql["figures"], answer.sql["figures, other run"])
    cells = frame.assign(**{other: frame["subset"].str.partition(" of ")[0]})
    return {"layer by layer": heatmap(cells, NAME, sql, x=other)}
