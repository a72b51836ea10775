"""Structure: which experts go together, in a token, from token to token, and from layer to layer?

* co-activation within a token: `coactivation.py` (OLMoE's definition, and its released code's)
* repetition from token to token (Mixtral's Table 5): `repetition.py`; routing consistency SRP and SCH: `consistency.py`
* transitions between layers, and paths through all of them: `flow.py`
* similarity of router rows and of experts by their weights: `weight_similarity.py`

Each says its formulas, sources, and what its null holds constant. Router saturation between checkpoints is in `diff`.
"""

from typing import Any

import numpy as np
import pandas as pd

from ...errors import AnalysisError
from ...statistics import Array
from ...store import Store
from .._shared.answer import Answer, Chart, few_units, gather
from .._shared.arrays.decision_sample import Sample, sample
from .._shared.chart_forms import heatmap, layers
from .._shared.scope import Scope, scope
from .._shared.verdicts import saying
from .._shared.verdicts.verdict import Verdict, analyze, clearest, verdict
from .coactivation import closest_pairs, coactivation_rows
from .consistency import consistency_rows
from .flow import paths, transitions
from .repetition import repetition_rows
from .weight_similarity import likeness, similarity_sql

MOST = 3_000_000  # assignments in memory
OF_RANKS = (
    "repetition, first choice", "I(expert; expert in the next layer) (bits)", "distinct paths", "path entropy (bits)",
    "released code",
)  # fmt: skip
"""Figures that read first choices, or neighbours in rank."""


def run(store: Store, run: int | None = None, by: str | None = None) -> Answer:
    """Structure of the newest run or `run`; repetition also by sequence label `by`."""
    here = scope(store, run)
    notes = list(here.notes)
    taken = sample(here, notes, MOST)
    _kind, masks = _subsets(here, taken, by, notes)
    pair_rows, cells = coactivation_rows(taken)
    path_rows, frequent = paths(taken)
    moves_sql = _moves_sql(here)
    alike, similar = likeness(here, taken, notes)
    rows = [*pair_rows, *repetition_rows(taken, masks), *consistency_rows(taken), *transitions(taken), *path_rows]
    if not rows:
        raise AnalysisError(
            f"run {here.run} chose one expert per token, in one layer, for single tokens: no structure to measure"
        )
    if not pair_rows:
        notes.append("No co-activation: no router chooses more than one expert per token.")
    frame = here.without_ranks(gather(rows + alike, cells), OF_RANKS, notes)
    pairs = closest_pairs(cells)
    frames = {
        "figures": frame,
        "pairs": pairs,
        "transitions": store.sql(moves_sql).df(),
        "paths": frequent if here.ranked else frequent.iloc[:0],
        "similarity": similar,
    }
    sql = dict.fromkeys(frames, taken.sql) | {"transitions": moves_sql, "similarity": similarity_sql(here)}
    return Answer("structure", "Structure", _verdict(frame), here.run, frames, sql, notes + few_units(frame), charts)


def _subsets(here: Scope, taken: Sample, by: str | None, notes: list[str]) -> tuple[str, dict[str, Array]]:
    """Rows of everything, and of every label."""
    masks = {"": np.ones(len(taken.tokens), dtype=bool)}
    if (kind := here.kind_or_note(by, notes, "Repetition is not split by label")) is None:
        return "", masks
    labels = dict(here.store.rows(f"select sequence, label from sequence_labels where kind = '{kind}'"))
    mine = taken.tokens["sequence"].map(labels)
    most = mine.value_counts().index[:12]
    return kind, masks | {f"{kind}={label}": (mine == label).to_numpy() for label in most}


def _moves_sql(here: Scope) -> str:
    return f"""with said as (
  select stack, layer, next_layer, expert, next_expert, n, share,
    sum(n) over (partition by stack, layer, next_expert) / sum(n) over (partition by stack, layer) as chance
  from transitions where run = {here.run}),
surprise as (select *, n * ln(share / chance) as surprise from said)
select * exclude surprise from surprise qualify row_number() over (partition by stack, layer order by surprise desc) <= 100
order by stack, layer, surprise desc"""


def _verdict(frame: Any) -> Verdict:
    whole = frame[frame["subset"] == ""]
    first = clearest(whole[(whole["name"] == "repetition, first choice") & (whole["estimator"] == "against load")])
    flow = clearest(frame[(frame["name"].str.startswith("I(expert; expert in")) & (frame["estimator"] == "less null mean")])
    pairs = clearest(frame[(frame["name"] == "co-activation, mean of closest partners") & (frame["estimator"] == "paper")])
    said = [*_repeats(first, frame), *_flows(flow, frame)]
    rows = pd.concat([first.head(4), flow.head(4), *([pairs.head(4)] if not said else [])])
    rows = rows if len(rows) else clearest(frame)
    follows = "; ".join(said) or f"Experts go together by co-activation only: {saying.amount(rows.iloc[0], '%')} at the closest"
    found = rows[rows["q"] <= saying.FDR]
    limits = "it does not show whether experts follow each other or both follow the words" if len(found) else saying.NOTHING
    row = (found if len(found) else rows).iloc[0]
    return verdict(follows[0].upper() + follows[1:], row, frame, limits, rows, analyze("dimensionality"))


def _repeats(first: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    if first.empty:
        return []
    if not (first["q"] <= saying.FDR).any():
        return ["neighbouring tokens share their first expert no more often than tokens shuffled within documents"]
    top = first[first["q"] <= saying.FDR].sort_values("value").iloc[-1]
    return [
        f"neighbouring tokens share their first expert in {saying.amount(top, '%')} of cases in {saying.layer(top, frame)}, "
        f"where load alone gives {saying.number(100 * top['chance'])} %"
    ]


def _flows(flow: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    if flow.empty:
        return []
    if not (flow["q"] <= saying.FDR).any():
        return [f"a layer's first choice tells nothing of the next layer's, {saying.most(flow)}"]
    top = flow[flow["q"] <= saying.FDR].sort_values("value").iloc[-1]
    return [f"the first choice in {saying.layer(top, frame)} tells {saying.amount(top)} of the next layer's beyond chance"]


def charts(answer: Answer) -> dict[str, Chart]:
    """Repetition, consistency and transitions by layer; the closest pairs."""
    wanted = [
        ("repetition, first choice", "against load", "Neighbours with the same first expert"),
        ("repetition, any of the chosen", "against random", "Neighbours whose experts meet"),
        ("co-activation, mean of closest partners", "paper", "Co-activation with the closest partner"),
        ("router weight cosine", "largest pair", "Cosine of the two most alike router rows"),
        ("SRP", "layer", "SRP, segments of 16 tokens"),
        ("I(expert; expert in the next layer) (bits)", "less null mean", "Bits about the next layer beyond chance"),
    ]
    made = {}
    for name, estimator, title in wanted:
        part = answer.figures(name, estimator=estimator)
        part = part[(part["subset"] == "") | part["subset"].str.startswith("to layer")]
        if len(part):
            made[name] = layers(part, title, answer.sql["similarity" if name == "router weight cosine" else "figures"])
    pairs = answer.frames["pairs"]
    if len(pairs):
        made["pairs"] = heatmap(
            pairs[pairs["layer"] == pairs["layer"].max()],
            "Most surprising pairs, last layer",
            answer.sql["pairs"],
            "expert",
            "other",
        )
    return made
