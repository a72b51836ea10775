"""Standing committee: do the same few experts take most of the weight in every domain?

After COMMITTEEAUDIT (arXiv 2601.03425, and its released code). Mass of an expert in a domain: the domain's routing weights that
it was given. At a budget of n experts a domain's n experts of most mass have ranks 1 to n, all others n + 1. Candidates lead in
`presence` of the domains or more; the committee is the Pareto set of candidates over mean and variance of rank (`committees`).
* committee coverage: share of all mass that the committee takes, each domain counting alike; chance: its size / experts.
  Released code: of the mass of the n leading experts of each domain only, so that it is larger.
* committee against others: mass of a member over mass of another expert, in the mean.
* overlap of leading experts: Jaccard index of the fewest experts that hold `top_p` of a domain's mass, over pairs of domains.
* prompt and continuation: the same within a document, where a run generated text: see `phases.py` (arXiv 2604.09780).

Nulls. Coverage: expert numbers shifted in each document by a number of its own, which holds each document's unevenness and asks
whether it is the same experts in all: of as many experts as are in the committee, those that take most are counted, so that
having chosen them explains nothing. The overlap lies between two: its chance is random sets of the same sizes, its null mean
what domains alike would give (documents drawn again within their domain about the distribution of all, which holds how well
each is known). It has no p: whether domains differ is asked by `specialization`. Intervals hold the committee and draw
documents within domains. q is over all rows of the answer.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...errors import AnalysisError
from ...statistics import Array
from ...store import Store
from ...words import Portion
from .._shared.answer import Answer, Chart, few_units, figures, gather
from .._shared.arrays.document_counts import Table, load_sql, tables
from .._shared.chart_forms import layers
from .._shared.scope import scope
from .._shared.verdicts.verdict import analyze, signed
from . import audit
from .phases import by_phase
from .said import reading

SOURCE, CODE = "2601.03425", "The-FinAI/CommitteeAudit, Audit_Committee.py"
SHIFTED = "expert numbers shifted within each document"
COMMON = "documents drawn anew, as many and as long, about the distribution of all"
DRAWS = 199
LIMITS = "it does not show that the committee is needed, nor that its experts do alike"


def run(
    store: Store,
    run: int | None = None,
    by: str | None = None,
    presence: Portion = 0.8,
    top_p: Portion = 0.8,
    budgets: str = "",
) -> Answer:
    """Domains are the values of the sequence label `by`; `budgets` such as "2,8" (default: k, and twice k where E allows)."""
    if not (0 < presence <= 1 and 0 < top_p <= 1):
        raise AnalysisError(f"`presence` and `top_p` are shares above 0 and up to 1, not {presence:g} and {top_p:g}")
    here = scope(store, run)
    notes = list(here.notes)
    kind = here.kind_or_note(by, notes, "No committee")
    rows, committees, sql = [], [], {}
    if kind is not None:
        sql["committees"] = load_sql(here, kind)
        for table in tables(here, sql["committees"], "weight"):
            figured, found = _of(table, kind, presence, top_p, _budgets(table, budgets))
            rows += figured
            committees += found
    written, sql["phases"] = by_phase(here, top_p, notes)
    frame = gather([*rows, *written], family=())
    frames = {"figures": frame, "committees": pd.DataFrame(committees)}
    sql = {"figures": sql.get("committees", sql["phases"]), "committees": sql["phases"]} | sql
    said = reading(frame, frames["committees"], top_p, SHIFTED)
    verdict = signed(said, frame[frame["name"] == "committee coverage"], frame, LIMITS, analyze("load"), "%")
    return Answer(
        "committee",
        "Standing committee",
        verdict,
        here.run,
        frames,
        sql,
        notes + few_units(frame),
        charts,
    )


def _budgets(table: Table, asked: str) -> list[int]:
    """Experts that lead a domain: as asked, or k and 2 k; fewer than all."""
    experts = table.counts.shape[2]
    if not asked:
        k = int(np.nan_to_num(table.chosen, nan=2)) or 2
        return sorted({min(n, experts - 1) for n in (k, 2 * k)} - {0})
    try:
        found = sorted({int(part) for part in asked.split(",")})
    except ValueError as error:
        raise AnalysisError(f"`budgets` are numbers of experts such as 2,8, not {asked!r}") from error
    if not found or found[0] < 1 or found[-1] > experts:
        raise AnalysisError(f"`budgets` are numbers from 1 to {experts}, the experts of a router here, not {asked!r}")
    return found


def _of(
    table: Table, kind: str, presence: float, top_p: float, budgets: list[int]
) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    """Figures and committees of one router."""
    some = table.counts.sum((1, 2)) > 0
    counts, home = np.maximum(table.counts[some], 0), table.home[some]
    if len(np.unique(home)) < 2:
        return [], []
    mass, domains = counts.sum(0), len(table.labels)
    dealt = np.eye(domains)[:, home]  # domains x documents
    shifted = _shifted(counts.sum(1), dealt)
    drawn = st.document_draws(counts, home)
    common: dict[str, Any] = {"n": round(mass.sum()), "units": len(counts)}
    rows, found = [], []
    for budget in budgets:
        figured, said = _at(table, kind, mass, shifted, drawn, budget, presence, common)
        rows += figured
        found.append(said)
    return [*rows, _overlap(table, kind, counts, home, drawn, top_p, common)], found


def _shifted(of_document: Array, dealt: Array) -> Array:
    """(DRAWS, domains, experts): the documents' masses with their experts' numbers moved on by a number of each document."""
    documents, experts = of_document.shape
    rng, at = np.random.default_rng(0), np.arange(experts)
    moved = (
        np.take_along_axis(of_document, (at + rng.integers(0, experts, (documents, 1))) % experts, 1) for _ in range(DRAWS)
    )
    return np.stack([dealt @ m for m in moved])


def _at(
    table: Table, kind: str, mass: Array, shifted: Array, drawn: Array, budget: int, presence: float, common: dict[str, Any]
) -> tuple[list[pd.DataFrame], dict[str, Any]]:
    """One budget: figures, and who is in the committee."""
    experts = mass.shape[1]
    chosen, mean, spread = audit.members(mass, budget, presence)
    size = len(chosen)
    under = [audit.heaviest(m, size) for m in shifted]
    null = np.array([audit.coverage(m, c) for m, c in zip(shifted, under)])
    where = table.where | {"subset": f"{kind}, budget {budget}"}
    value, draws = audit.coverage(mass, chosen), audit.coverage(drawn, chosen)
    shared: dict[str, Any] = {"null_name": SHIFTED, **common}
    cover = figures(where, "committee coverage", value, source=SOURCE, chance=size / experts, draws=draws, null=null,
                    bounds=(0, 1), **shared)  # fmt: skip
    code = figures(where, "committee coverage", audit.coverage(mass, chosen, budget), estimator="released code", source=CODE,
                   chance=min(1.0, size / budget), draws=audit.coverage(drawn, chosen, budget), bounds=(0, 1),
                   null_name="none: given to compare with the paper's figure", **common)  # fmt: skip
    times = figures(where, "committee against others", _ratio(value, size, experts), source=SOURCE, chance=1.0,
                    null=_ratio(null, size, experts), **shared)  # fmt: skip
    ends = {end: _ratio(cover[end].to_numpy(), size, experts) for end in ("ci_low", "ci_high")}  # as it grows with coverage
    rows = [cover, code, times.assign(**ends)]
    said = table.where | {"kind": kind, "budget": budget, "size": size, "experts": ", ".join(map(str, chosen))}
    said |= {"mean rank": float(mean.mean()) if size else np.nan, "variance of rank": float(spread.mean()) if size else np.nan}
    return rows, said | {"coverage": float(value), "null_mean": float(null.mean())}


def _ratio(coverage: Any, size: int, experts: int) -> Any:
    """Mass of a member over that of another expert; 1 where all or none are members."""
    if not 0 < size < experts:
        return np.ones(np.shape(coverage))
    return (coverage / size) / np.maximum((1 - coverage) / (experts - size), 1e-9)


def _overlap(
    table: Table, kind: str, counts: Array, home: Array, drawn: Array, top_p: float, common: dict[str, Any]
) -> pd.DataFrame:
    mass = counts.sum(0)
    null = audit.overlap(st.common_draws(counts.sum(1), home, len(table.labels), DRAWS), top_p)
    chance = audit.by_chance(audit.leaders(mass, top_p).sum(-1).astype(float), mass.shape[1])
    return figures(table.where | {"subset": kind}, "overlap of leading experts", audit.overlap(mass, top_p),
                   estimator=f"Jaccard at {top_p:.0%} of mass", source=SOURCE, chance=chance, draws=audit.overlap(drawn, top_p),
                   null=null, null_name=COMMON, bounds=(0, 1), **common).assign(p=np.nan)  # fmt: skip


def charts(answer: Answer) -> dict[str, Chart]:
    """Coverage by layer and budget, and the overlap of domains."""
    sql, drawn = answer.sql["figures"], {}
    if len(frame := answer.figures("committee coverage", estimator="definition")):
        drawn["committee coverage by layer"] = layers(frame, "Share of routing weight of the committee", sql, "subset")
    for name in ("overlap of leading experts", "prompt and continuation"):
        if len(frame := answer.figures(name)):
            drawn[f"{name} by layer"] = layers(frame, name.capitalize(), sql, "estimator")
    return drawn
