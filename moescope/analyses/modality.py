"""Modalities: do experts divide text, images, video and audio between them, without being told?

The modality of a token is its unit (patches are images); class tokens and what could not be named are left out.

* `share of load by modality`: N_me / sum_e N_me of assignments that ran; chance: the expert's share over all modalities.
* `I(modality; expert)` in bits, plug-in and less its mean under the null; `JSD` of the loads of two modalities, bits.
* LIMoE's entropies (Mustafa et al. 2022, arXiv 2206.02770, section 2.2, where they are losses), per modality, in nats:
  `local entropy` Ω_local = mean over its tokens of H(p(.|x)), small when routers are sure; `global entropy` -Ω_global = H of
  the mean over its tokens of p(.|x), large when it uses many experts, chance ln E. `of mean probabilities` needs router logits
  in the store; else `of the load`: H of the shares of assignments that ran.

Null: modalities dealt anew to what documents did in one modality: the tokens of a document stay together. Where a document has
several, they are exchanged in it; where each has one, they are dealt among documents. Intervals: documents drawn anew.
Entropies have no null, each is a level beside its chance.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from ..errors import AnalysisError
from ..statistics import Pool
from ..store import Store
from ..words import Portion
from ._shared.answer import Answer, Chart, few_units, gather
from ._shared.arrays import probabilities
from ._shared.arrays.document_counts import Table, tables
from ._shared.chart_forms import heatmap, layers
from ._shared.dealt_labels import Pooled, settled
from ._shared.modality_entropies import global_, local
from ._shared.scope import Scope, scope
from ._shared.value_figures import ByValue, corrected, share
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import MOST, Verdict, analyze, clearest, verdict

MODALITY = "case t.unit when 'patch' then 'image' else t.unit end"
KNOWN = "t.unit in ('text', 'patch', 'image', 'video', 'audio')"


def run(store: Store, run: int | None = None, fdr: Portion = 0.05) -> Answer:
    """Load of every router by modality, and LIMoE's entropies."""
    here = scope(store, run)
    notes, there = list(here.notes), _modalities(here)
    sql = {"figures": _counts(here), "entropies": _entropies(here)}
    rows: list[pd.DataFrame | Pooled] = []
    alone, pools = 0, dict[str, Pool]()
    for table in tables(here, sql["figures"]):
        if table.counts.any():
            alone += int((table.total.sum(1) > 0).sum() < 2)
            found = _seen(table)
            several = len(found.table.labels) > 1
            rows += [*(found.information() if several else ()), found.loads(pools)]
            rows += found.divergences([*combinations(range(len(found.table.labels)), 2)], "pairs")
            rows += _global(here, table, there)
    rows += _local(here, sql["entropies"], notes)
    if alone:
        notes.append(f"{alone} routers see one modality only: their entropies are given, and there is nothing to compare.")
    frame = gather(settled(rows))
    if (frame["estimator"] == "of the load").any():
        notes.append(
            "Where no router logits are stored the global entropy is of the load: trace with `--logits 1` for the other."
        )
    loads = frame[frame["name"] == share("modality")].reset_index(drop=True)
    frames, sql["loads"] = {"figures": frame, "loads": loads}, sql["figures"]
    said = _verdict(frame, there, fdr)
    return Answer("modality", "Modalities", said, here.run, frames, sql, notes + few_units(frame), charts)


def _modalities(here: Scope) -> list[str]:
    """Those of the run's tokens that were routed; AnalysisError if there are not two."""
    found = here.store.rows(f"select distinct {MODALITY} from tokens t where run = {here.run} and {KNOWN} order by 1")
    names = [name for (name,) in found]
    if len(names) < 2:
        what = (
            f"all tokens of run {here.run} are of one modality ({names[0]})" if names else f"run {here.run} has no such tokens"
        )
        raise AnalysisError(f"{what}, so modalities cannot be compared (load has its entropies); trace a model that reads two")
    return names


def _counts(here: Scope) -> str:
    return f"""with units as ({here.units_sql()})
select u.unit, a.router, {MODALITY} as label, a.expert, count(*) as n from assignments a join tokens t using (token)
join units u using (sequence) where a.run = {here.run} and not a.dropped and {KNOWN} group by all"""


def _entropies(here: Scope) -> str:
    return f"""with units as ({here.units_sql()})
select u.unit, d.router, {MODALITY} as modality, sum(d.entropy) as entropy, count(*) as n from decisions d
join tokens t using (token) join units u using (sequence)
where d.run = {here.run} and isfinite(d.entropy) and {KNOWN} group by all order by router, modality, unit"""


def _places(here: Scope) -> str:
    return f"""with units as ({here.units_sql()})
select t.token, u.unit, {MODALITY} as label from tokens t join units u using (sequence) where t.run = {here.run} and {KNOWN}"""


def _seen(table: Table) -> ByValue:
    """Of the modalities that the router saw."""
    known = np.flatnonzero(table.total.sum(1) > 0)
    return ByValue(Table(table.router, [table.labels[i] for i in known], table.counts[:, known]), "modality", "modality")


def _global(here: Scope, table: Table, there: list[str]) -> list[pd.DataFrame]:
    """Global entropy of every modality that the router saw: of mean probabilities where logits are stored, else of the load."""
    row, known = table.router, table.router["score"] in probabilities.SCORES
    known = (
        known
        and here.store.rows("select count(*) > 0 from logits where run = ? and router = ?", [here.run, row["router"]])[0][0]
    )
    if known:
        names, form = there, "of mean probabilities"
        sums = probabilities.sums(here, row, _places(here), there, len(table.counts))
    else:
        names, form = table.labels, "of the load"
        sums = np.concatenate([table.counts, table.counts.sum(2, keepdims=True)], axis=2)
    some = [(name, sums[:, i]) for i, name in enumerate(names) if sums[:, i].any()]
    return [global_(row, name, part[:, :-1], part[:, -1]).assign(estimator=form) for name, part in some]


def _local(here: Scope, sql: str, notes: list[str]) -> list[pd.DataFrame]:
    rows = local(here, here.store.sql(sql).df())
    if not rows:
        notes.append("No decision has an entropy (routers without logits), so there is no local entropy.")
    return rows


def _verdict(frame: pd.DataFrame, there: list[str], fdr: float) -> Verdict:
    told, names = clearest(corrected(frame, "modality")), ", ".join(there)
    limits = "it does not show that an expert is needed for a modality"
    if told.empty:
        loads = frame[frame["name"] == share("modality")]
        follows = f"Every router sees one modality only ({names}), so none divides them"
        return Verdict(follows, saying.evidence(loads.iloc[0], frame), limits, loads.head(MOST), analyze("load"))
    found = told[told["q"] <= fdr]
    if found.empty:
        follows = f"The modality ({names}) tells no more of the experts than modalities dealt anew: {saying.most(told)}"
        return verdict(follows, told.iloc[0], frame, saying.NOTHING, told, analyze("load"))
    best = found.loc[found["value"].idxmax()]
    follows = (
        f"Experts divide the modalities ({names}) in {saying.share_of(len(found), len(told), 'router')}, most in "
        f"{saying.layer(best, frame)}, where the modality tells {saying.amount(best)} of an assignment beyond chance"
    )
    return verdict(follows, best, frame, limits, found, analyze("load"))


def charts(answer: Answer) -> dict[str, Chart]:
    """Information by layer, both entropies by layer, and each modality's load."""
    made: dict[str, Chart] = {}
    told = corrected(answer.frames["figures"], "modality")
    if len(told):
        made["what the modality tells"] = layers(told, "I(modality; expert), bits beyond chance", answer.sql["figures"])
    for name, sql in (("local", "entropies"), ("global", "figures")):
        part = answer.figures(f"{name} entropy (nats)")
        if len(part):
            made[f"{name} entropy"] = layers(part, f"{name.capitalize()} entropy, nats", answer.sql[sql], colour="subset")
    for subset, part in answer.frames["loads"].groupby("subset"):
        made[f"load, {subset}"] = heatmap(part, f"Share of load of {subset}", answer.sql["loads"])
    return made
