"""Steering by experts: which experts run oftener for one set of texts than another, and what does forcing or barring them do?

* risk difference (SteerMoE, arXiv 2509.09660): share of the tokens of the first set for which an expert ran, less that of the
  second: see `contrast.py` for its null. The authors change the experts of largest absolute difference.
* experts by the two-fold rule (Monet, arXiv 2412.04139): an expert is a domain's if the domain gives it at least twice the
  share that any other domain does; how many a router has. Null: domains alike, each with its own number and length of
  documents, redrawn about the distribution of all. With few tokens, chance alone doubles many shares.
* effects: what forcing or barring those experts did to the loss of each set, from `moescope experiment steer` (docs there);
  without it this says what goes together, not what causes what.
q of the risk differences is over all experts of all routers. Intervals draw documents within their set.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...errors import AnalysisError
from ...statistics import Array
from ...store import Store
from .._shared.answer import Answer, Chart, few_units, figures, gather
from .._shared.arrays.document_counts import Table, load_sql, tables
from .._shared.chart_forms import bars, heatmap, layers
from .._shared.experiments import kept, sql_of
from .._shared.scope import Scope, scope
from .._shared.verdicts.verdict import analyze, signed
from .contrast import Contrast

STEERMOE, MONET = "SteerMoE 2509.09660, risk difference", "Monet 2412.04139"
RISK, TWICE = "risk difference", "experts by the two-fold rule"
CHANGE = "change of loss (nats per token)"  # of `moescope experiment steer`
DEALT = "documents dealt anew among the two sets, differences over their errors"
ALIKE = "documents drawn anew, as many and as long, about the distribution of all"
DRAWS, TIMES = 199, 2.0
LIMITS = "it does not show that an expert is the cause of what differs where nothing was forced or barred"


def run(
    store: Store, run: int | None = None, by: str | None = None, first: str | None = None, second: str | None = None
) -> Answer:
    """Sets are two values of the sequence label `by`: `first` and `second` (default: those of most documents)."""
    here = scope(store, run)
    notes = list(here.notes)
    kind = here.kind(by)
    sql = load_sql(here, kind)
    tokens = _tokens_sql(here, kind)
    looked = {t.where["router"]: t for t in tables(here, tokens)}  # also of documents in which everything was dropped
    rows, monosemantic = [], []
    pair: tuple[int, int] | None = None
    for table in tables(here, sql):
        pair = pair or _pair(table, kind, first, second)
        rows.append(_risks(table, kind, _looked(looked[table.where["router"]], table.labels), *pair))
        figured, found = _twofold(table, kind)
        rows.append(figured)
        monosemantic += found
    effects, _ = kept(store, here.run, "steer")
    if effects.empty:
        notes.append("What forcing or barring them does is not known yet: make it with moescope experiment steer MODEL STORE.")
    frame = gather([*rows, *([effects] if len(effects) else [])], family=("name",))
    frames = {"figures": frame, "two-fold": pd.DataFrame(monosemantic)}
    every = {"figures": sql, "two-fold": sql, "tokens": tokens, "effects": sql_of(here.run, "steer")}
    said = signed(_reading(frame, kind), frame[frame["name"] == RISK], frame, LIMITS, analyze("specialization"), "%")
    return Answer("steering", "Steering by experts", said, here.run, frames, every,
                  notes + few_units(frame), charts)  # fmt: skip


def _tokens_sql(here: Scope, kind: str) -> str:
    return f"""with units as ({here.units_sql(kind)})
select units.unit, router, 0 as expert, label, count(*) as n
from decisions join tokens using (token) join units using (sequence) where decisions.run = {here.run} group by all"""


def _looked(tokens: Table, labels: list[str]) -> Array:
    """(documents, labels) decisions, with the labels in this order."""
    at = {label: number for number, label in enumerate(tokens.labels)}
    return np.stack([tokens.counts[:, at[label], 0] for label in labels], 1)


def _pair(table: Table, kind: str, first: str | None, second: str | None) -> tuple[int, int]:
    """Numbers of the two labels. AnalysisError where one is not there, or has one document only."""
    documents = np.bincount(table.home[table.counts.any((1, 2))], minlength=len(table.labels))
    for name in (first, second):
        if name is not None and name not in table.labels:
            raise AnalysisError(f"no text here has the {kind} {name!r}; there are: {', '.join(table.labels)}")
    free = [int(n) for n in np.argsort(-documents, kind="stable") if table.labels[n] not in (first, second)]
    a = table.labels.index(first) if first is not None else free.pop(0)
    b = table.labels.index(second) if second is not None else free.pop(0)
    if a == b or min(documents[[a, b]]) < 2:
        raise AnalysisError(
            f"{kind} {table.labels[a]} and {table.labels[b]} cannot be compared: that takes two sets of two documents or more, "
            f"and they have {documents[a]} and {documents[b]}; trace more, or name others with `first` and `second`"
        )
    return a, b


def _risks(table: Table, kind: str, looked: Array, a: int, b: int) -> pd.DataFrame:
    """Risk difference of every expert of one router."""
    mine = (looked[:, [a, b]] > 0).any(1)
    counts = np.zeros((len(looked), *table.counts.shape[1:]))
    counts[: len(table.counts)] = table.counts
    ran, tokens = counts[mine][:, [a, b]].sum(1), looked[mine][:, [a, b]].sum(1)
    contrast = Contrast(ran, tokens, looked[mine, a] > 0)
    value, null, p = contrast.tested()
    home = np.where(contrast.first, 0, 1)
    weights = st.bootstrap_weights(len(home), strata=home)
    rates = [(weights * (home == n)) @ ran / np.maximum((weights * (home == n)) @ tokens, 1)[:, None] for n in (0, 1)]
    subset = f"{kind}={table.labels[a]} less {table.labels[b]}"
    where = table.where | {"expert": np.arange(len(value)), "subset": subset}
    return figures(where, RISK, value, source=STEERMOE, chance=0.0, draws=rates[0] - rates[1], null=null, null_name=DEALT,
                   side="both", bounds=(-1, 1), n=int(tokens.sum()), units=len(home)).assign(p=p)  # fmt: skip


def _twofold(table: Table, kind: str) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """How many experts the rule gives to a domain, and which."""
    some = table.counts.any((1, 2))
    counts, home = table.counts[some], table.home[some]
    shares = st.shares(counts.sum(0))
    found, times, where = _twice(shares)
    null = _twice(st.shares(st.common_draws(counts.sum(1), home, len(table.labels), DRAWS)))[0].sum(-1)
    drawn = _twice(st.shares(st.document_draws(counts, home)))[0].sum(-1)
    row = figures(table.where | {"subset": kind}, TWICE, found.sum(), source=MONET, chance=0.0, draws=drawn, null=null,
                  null_name=ALIKE, bounds=(0, counts.shape[2]), n=int(counts.sum()), units=len(counts))  # fmt: skip
    row = row.assign(ci_low=row[["ci_low", "value"]].min(axis=1), ci_high=row[["ci_high", "value"]].max(axis=1))  # of counts
    said = [
        table.where | {"expert": int(e), kind: table.labels[where[e]], "times": float(times[e]), "share": shares[where[e], e]}
        for e in np.nonzero(found)[0]
    ]
    return row, said


def _twice(shares: Array) -> tuple[Array, Array, Array]:
    """Of shares (..., domains, experts): (..., experts) whether the rule holds, the largest over the second, the domain."""
    ordered = np.sort(shares, axis=-2)
    best, next_best = ordered[..., -1, :], ordered[..., -2, :]
    times = np.divide(best, next_best, out=np.full(best.shape, np.inf), where=next_best > 0)
    return (times >= TIMES) & (best > 0), times, shares.argmax(-2)


def _reading(frame: pd.DataFrame, kind: str) -> str:
    risks, rule = frame[frame["name"] == RISK], frame[frame["name"] == TWICE]
    more = rule[rule["q"] <= 0.05]
    beyond = (
        f"by the two-fold rule {int(rule['value'].sum())} experts are a {kind}'s, where chance gives "
        f"{rule['null_mean'].sum():.1f} (more than chance in {len(more)} of {len(rule)} routers)"
    )
    known = risks[risks["q"] <= 0.05]
    if known.empty:
        return f"No expert runs oftener in one set than documents vary by (least p {risks['p'].min():.2g}); {beyond}."
    top = known.loc[known["value"].abs().idxmax()]
    span = "" if pd.isna(top["ci_low"]) else f" [{top['ci_low']:+.1%}, {top['ci_high']:+.1%}]"
    return (
        f"{len(known)} of {len(risks)} experts run oftener in one set than in the other (q <= 0.05 over all experts), foremost "
        f"expert {top['expert']} of {top['stack']} layer {top['layer']} ({top['subset']}: {top['value']:+.1%} of tokens{span}, "
        f"{top['units']} documents); {beyond}. {_effects(frame[frame['name'] == CHANGE])}"
    )


def _effects(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "That they cause what differs is for moescope experiment steer to show."
    own = rows[rows["subset"].str.contains(" less ")]
    control = own[own["estimator"].str.contains("control ")].set_index("estimator")["value"]
    own = own[own["estimator"].str.contains("experts ")]
    only = own[own["q"] <= 0.05]
    if only.empty:
        return f"Forcing or barring them is not seen to act on one set more than on the other ({own['units'].max()} documents)."
    best = only.loc[only["value"].abs().idxmax()]
    like = control.get(best["estimator"].replace("experts", "control"), float("nan"))
    return (
        f"{best['estimator'].capitalize()}: the loss of {best['subset']} changes by {best['value']:+.3f} nats per token "
        f"(experts of like load: {like:+.3f}; q {best['q']:.2g} over all effects; {best['units']} documents left out of the "
        "choice)."
    )


def charts(answer: Answer) -> dict[str, Chart]:
    """Risk differences by layer and expert; effects by what was done, where there are some."""
    sql = answer.sql["figures"]
    drawn = {"risk difference by layer and expert": heatmap(answer.figures(RISK), "Risk difference", sql)}
    if len(effects := answer.figures(CHANGE)):
        drawn["change of loss"] = bars(effects, "Change of loss (nats per token)", sql, "estimator", "subset")
    drawn["two-fold rule by layer"] = layers(answer.figures(TWICE), "Experts by the two-fold rule", sql)
    return drawn
