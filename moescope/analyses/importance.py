"""Expert importance: which experts matter, by the scores that a trace alone can give, and how far do the scores agree?

By router, over tokens t that chose expert e with weight g, of sequences j with L_j tokens:
* frequency Σ1 / all assignments, chance 1/E; gate mass Σg / all weights; mean gate Σg / Σ1.
* ESFT average gate, paper (2407.01906): mean_j (1/L_j) Σ_t g; released code (generate_expert_config.py): Σ g over all tokens
  over the sum of that over layers, for one expert number (`axis=0`; issue 17 of that repository), so that a layer's scores do
  not sum to 1; the same with the axis set right, by layer; released gate_scores (summary.json): Σ g / tokens, by layer, which
  weighs tokens alike where the paper weighs samples alike. Chance: the same sum spread evenly, 1/E where weights sum to 1.
* ESFT token selection: paper mean_j (1/L_j) Σ_t 1(g > 0) / K; the same two forms of the code.
* where a trace measured activations: EAN Σ‖f‖, weighted EAN Σ g‖f‖, REAP mean g‖f‖ (2510.13999), super experts (2507.23279):
  max |down_proj| above the 99.5th percentile of all experts and a tenth of the largest, in the first three quarters of layers.
`chosen`: the smallest set of experts whose scores reach `top_p`, as ESFT trains them (the paper's as shares of the layer).
Agreement: Spearman's rank correlation over the experts of a router. It has no p: scores are made of the same counts and
weights, so that they agree by arithmetic, and no null without that is to be had. Intervals: documents.
Frequency is not importance: what an expert does for the loss is asked by ablation, not by counting.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .. import statistics as st
from ..errors import AnalysisError
from ..store import Store
from ..words import Portion
from ._shared.answer import Answer, Chart, few_units, figures, gather
from ._shared.arrays.document_counts import Table, tables
from ._shared.arrays.routing_matrices import measured
from ._shared.chart_forms import heatmap
from ._shared.scope import Scope, scope
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import Verdict, ablate, verdict

Floats = np.ndarray
ACTIVATIONS = ("ean", "weighted_ean", "reap", "max_down_proj")
SOURCES = {
    "ESFT average gate": "ESFT 2407.01906",
    "ESFT token selection": "ESFT 2407.01906",
    "frequency": "count of assignments",
    "gate mass": "sum of routing weights",
    "mean gate": "routing weight where chosen",
}
NONE = "none: scores of the same counts agree by arithmetic"


def run(store: Store, run: int | None = None, top_p: Portion = 0.2) -> Answer:
    """Scores of every expert, their agreement, and the sets that ESFT would train at `top_p` (0 to 1)."""
    if not 0 < top_p <= 1:
        raise AnalysisError(f"`top_p` is a share of the scores, above 0 and up to 1, not {top_p}; ESFT takes 0.1 to 0.2")
    here = scope(store, run)
    sql = dict.fromkeys(("figures", "chosen"), _sql(here))
    counts = _counts(here, sql["figures"])
    scores = {router: _scores(counts, router) for router in counts["n"]}
    notes = list(here.notes)
    _released(here, scores, notes)
    frames, agreement, chosen = [], [], []
    for router, forms in scores.items():
        table = counts["n"][router]
        units = int((table.counts.sum((1, 2)) > 0).sum())
        for (name, form), draws in forms.items():
            frames.append(_figure(table, name, form, draws, units))
        agreement += _agreement(table.where, forms, units)
        chosen += [
            _chosen(table.where, name, form, d[0], top_p) for (name, form), d in forms.items() if name.startswith("ESFT")
        ]
    frames += _activations(here, notes)
    found = {"figures": gather(frames + agreement), "chosen": pd.DataFrame(chosen)}
    said = _verdict(found["figures"], found["chosen"], top_p)
    return Answer("importance", "Expert importance", said, here.run, found, sql, notes + few_units(found["figures"]), charts)


def _sql(here: Scope) -> str:
    """Sums by document, router and expert; `_by_length`: every sequence's sum over its tokens divided by their number."""
    return f"""with units as ({here.units_sql(groups=st.GROUPS)}),
of_run as (select token, sequence from tokens where run = {here.run}),
lengths as (
  select router, sequence, count(*) as length from decisions join of_run using (token) where run = {here.run} group by all),
by_sequence as (
  select router, sequence, expert, count(*) as n, sum(weight) as weight
  from assignments join of_run using (token) where run = {here.run} and not dropped group by all),
of_unit as (
  select unit, router, count(*) as sequences, sum(length) as decisions
  from lengths join units using (sequence) group by all),
of_expert as (
  select unit, router, expert, sum(n)::double as n, sum(weight) as weight, sum(weight / length) as gate_by_length,
         sum(n / length) as tokens_by_length
  from by_sequence join lengths using (router, sequence) join units using (sequence) group by all)
from of_expert join of_unit using (unit, router) order by unit, router, expert"""


def _counts(here: Scope, sql: str) -> dict[str, dict[int, Table]]:
    """One table per router of each sum; the query runs once."""
    con = here.store.con
    con.register("importance_sums", here.store.sql(sql).df())
    columns = ("n", "weight", "gate_by_length", "tokens_by_length", "sequences", "decisions")
    try:
        query = "select unit, router, expert, {} as n from importance_sums"
        return {c: {int(t.router["router"]): t for t in tables(here, query.format(c))} for c in columns}
    finally:
        con.unregister("importance_sums")


def _scores(counts: dict[str, dict[int, Table]], router: int) -> dict[tuple[str, str], Floats]:
    """(1 + draws, experts) by name and form: the value first, then bootstrap draws over documents."""
    found = {column: table[router].counts[:, 0, :] for column, table in counts.items()}
    n, gate, gates, tokens = (_drawn(found[c]) for c in ("n", "weight", "gate_by_length", "tokens_by_length"))
    sequences, decisions = (_drawn(found[c].max(1, keepdims=True)) for c in ("sequences", "decisions"))
    k, lengths = n.sum(1, keepdims=True) / np.maximum(decisions, 1), np.maximum(sequences, 1)
    return {
        ("frequency", "definition"): st.shares(n),
        ("gate mass", "definition"): st.shares(gate),
        ("mean gate", "definition"): np.divide(gate, n, out=np.zeros_like(n), where=n > 0),
        ("ESFT average gate", "paper"): gates / lengths,
        ("ESFT token selection", "paper"): tokens / lengths / np.maximum(k, 1e-9),
        ("ESFT average gate", "released gate_scores"): gate / np.maximum(decisions, 1),
        ("ESFT average gate", "released code"): gate,
        ("ESFT token selection", "released code"): n,
        ("ESFT average gate", "released code, axis set right"): st.shares(gate),
        ("ESFT token selection", "released code, axis set right"): st.shares(n),
    }


def _drawn(counts: Floats) -> Floats:
    """(1 + draws, ...): counts (documents, ...) summed as they are, then over documents drawn again."""
    return np.concatenate([counts.sum(0)[None], st.resampled(st.bootstrap_weights(len(counts)), counts)])


def _released(here: Scope, scores: dict[int, dict[tuple[str, str], Floats]], notes: list[str]) -> None:
    """The released code divides by the sum over layers of the same expert number; needs as many experts in every layer."""
    for name in ("ESFT average gate", "ESFT token selection"):
        key = (name, "released code")
        for stack, rows in here.routers.groupby("stack"):
            routers = [r for r in rows.index if r in scores]
            if len({scores[r][key].shape[1] for r in routers}) > 1:
                notes.append(f"{name}, released code: layers of the {stack} have different numbers of experts; left out.")
                for router in routers:
                    del scores[router][key]
                continue
            total = np.sum([scores[r][key] for r in routers], axis=0)
            for router in routers:
                scores[router][key] = np.divide(scores[router][key], total, out=np.zeros_like(total), where=total > 0)


def _figure(table: Any, name: str, form: str, draws: Floats, units: int) -> pd.DataFrame:
    experts = draws.shape[1]
    even = float(draws[0].sum()) / experts  # 1 / E, but where weights do not sum to 1, or capacity drops some
    known = form != "released code" and name != "mean gate"
    chance = (1 / experts if abs(even * experts - 1) < 1e-4 else even) if known else np.nan
    where = table.where | {"expert": np.arange(experts)}
    about: dict[str, Any] = {"source": SOURCES[name], "chance": chance, "n": int(table.total.sum()), "units": units}
    return figures(where, name, draws[0], estimator=form, draws=draws[1:], **about)


def _agreement(where: dict[str, Any], forms: dict[tuple[str, str], Floats], units: int) -> list[pd.DataFrame]:
    rows = []
    ranks = {key: stats.rankdata(values, axis=1) for key, values in forms.items() if "axis set right" not in key[1]}
    for a, b in combinations(ranks, 2):
        value = _correlation(ranks[a], ranks[b])
        if np.isnan(value[0]):
            continue
        names = [name if form == "definition" else f"{name} ({form})" for name, form in (a, b)]
        rows.append(
            figures(
                where | {"subset": " ~ ".join(names)},
                "rank correlation of scores",
                value[0],
                source="Spearman 1904",
                chance=0.0,
                draws=np.nan_to_num(value[1:]),
                bounds=(-1, 1),
                null_name=NONE,
                n=ranks[a].shape[1],
                units=units,
            )
        )
    return rows


def _correlation(a: Floats, b: Floats) -> Floats:
    """(rows,): Pearson's correlation of ranks; NaN where all are equal."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    top = (a * b).sum(1)
    return np.divide(top, norm, out=np.full(top.shape, np.nan), where=norm > 0)


def _chosen(where: dict[str, Any], name: str, form: str, score: Floats, top_p: float) -> dict[str, Any]:
    """The best experts, in order of score, until their scores sum to top_p; all of them where they never do."""
    if form == "paper":
        score = st.shares(score)
    order = np.argsort(-score, kind="stable")
    needed = int(np.searchsorted(np.cumsum(score[order]), top_p - 1e-12) + 1)
    best = [int(e) for e in order[:needed]]
    return where | {
        "score": name,
        "form": form,
        "top_p": top_p,
        "experts": len(best),
        "chosen": ", ".join(map(str, best)),
        "layer_sum": float(score.sum()),
    }


def _activations(here: Scope, notes: list[str]) -> list[pd.DataFrame]:
    found = [measured(here.store, here.run, [name], "importance") for name in ACTIVATIONS]
    missing = [name for name, frame in zip(ACTIVATIONS, found) if frame.empty]
    if missing:
        notes.append(f"No {', '.join(missing)} here: they need what experts return; trace with --measure importance.")
    return [frame for frame in found if len(frame)] + _super(here, found[-1])


def _super(here: Scope, largest: pd.DataFrame) -> list[pd.DataFrame]:
    """1 for super experts, 0 for the rest (Su et al. 2507.23279)."""
    if largest.empty:
        return []
    value = largest["value"].to_numpy(float)
    depth = largest["layer"].astype(float).to_numpy()
    early = depth < here.routers["layer"].min() + 0.75 * (here.routers["layer"].max() + 1 - here.routers["layer"].min())
    flag = (value > np.percentile(value, 99.5)) & (value > value.max() / 10) & early
    where = {key: largest[key].to_numpy() for key in ("stack", "layer", "router", "expert")}
    return [figures(where, "super expert", flag.astype(float), source="Super experts, 2507.23279")]


def _verdict(frame: pd.DataFrame, chosen: pd.DataFrame, top_p: float) -> Verdict:
    mass = frame[frame["name"] == "gate mass"].sort_values("value", ascending=False, kind="stable")
    best, paper = mass.iloc[0], chosen[(chosen["form"] == "paper") & (chosen["score"] == "ESFT average gate")]
    follows = (
        f"Of a router's weight {saying.expert(best, frame)} takes the largest share, {saying.amount(best, '%')} "
        f"against {saying.number(100 * best['chance'])} % for even weights; ESFT's average gate would train "
        f"{int(paper['experts'].sum())} of {len(mass)} experts at {top_p:g}"
    )
    limits = "scores count how often and how strongly experts run, and do not show what the model loses without them"
    return verdict(follows, best, frame, limits, mass, ablate(best))


def charts(answer: Answer) -> dict[str, Chart]:
    """Gate mass, and ESFT's average gate as in the paper, by layer and expert."""
    wanted = {"gate mass": "definition", "ESFT average gate": "paper"}
    sql = answer.sql["figures"]
    return {n: heatmap(answer.figures(n, estimator=form), f"{n} by layer and expert", sql) for n, form in wanted.items()}
