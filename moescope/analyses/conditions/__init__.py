"""Specialization by condition: do experts follow the timestep, the class, the task or whatever else a forward was told?

For a condition C that forwards (or sequences in them) were told, value c, and a router with assignments N_ce that ran:

* `I(condition; expert)` in bits: plug-in (Shannon 1948), and less its mean under the null. DiT-MoE (arXiv 2407.11633) says
  of its experts that they prefer timesteps and hardly mind classes: this is that as one number with a null.
* `share of load by condition`: N_ce / sum_e N_ce; chance: the expert's share under all values.
* `JSD`: Jensen-Shannon divergence (Lin 1991) in bits of the loads of two values: of neighbours where values are numbers, of all
  pairs of few words.

Of routers whose experts all run for every token (dense, soft), N sums weights in place of counting. More than 24 different
numbers are put into ten bins. Frame `sites`: means over routers, by kind and site in the block (attention.q_proj, ...).

Null: values dealt anew. What a document did at one value stays whole; sets of values are dealt among documents with equally
many, then shuffled within each document, so it fits classes as well as timesteps that every document goes through. Load and the
routing of each document are held. Intervals: documents drawn anew (`statistics.over_documents`'s recipe).
"""

import pandas as pd

from ...errors import AnalysisError
from ...statistics import Pool
from ...store import Store
from ...words import Portion
from .._shared.answer import Answer, Chart, few_units, gather
from .._shared.arrays.document_counts import Table, tables
from .._shared.chart_forms import bars, heatmap, layers
from .._shared.dealt_labels import Pooled, settled
from .._shared.scope import Scope, scope
from .._shared.value_figures import ByValue, corrected, share
from .._shared.verdicts import saying
from .._shared.verdicts.verdict import Verdict, analyze, clearest, verdict
from .told import Told, choose, gated, names

LIMITS = "it does not show that an expert is needed for any of them"


def run(store: Store, run: int | None = None, kind: str | None = None, fdr: Portion = 0.05) -> Answer:
    """What conditions of one `kind` (default: of every kind that varies) tell of the experts."""
    here = scope(store, run)
    notes = list(here.notes)
    rows: list[pd.DataFrame] = []
    sql: dict[str, str] = {}
    for told in choose(here, kind, notes):
        sql[f"counts by {told.kind}"] = told.sql
        rows += _by(here, told, notes)
    if not rows:
        raise AnalysisError(
            f"no router of run {here.run} has two experts to share a load; ask depth, which says what was skipped"
        )
    frame = gather(rows)
    loads = frame[frame["name"] == share("condition")].reset_index(drop=True)
    sites = _sites(frame, names(here), fdr)
    sql = dict.fromkeys(("figures", "loads", "sites"), next(iter(sql.values()))) | sql
    frames = {"figures": frame, "sites": sites, "loads": loads}
    said = _verdict(frame, fdr)
    return Answer("conditions", "Specialization by condition", said, here.run, frames, sql, notes + few_units(frame), charts)


def _by(here: Scope, told: Told, notes: list[str]) -> list[pd.DataFrame]:
    weighed = gated(here)
    alone = [row["name"] for _, row in here.routers.iterrows() if row["experts"] < 2]
    said = f"{len(alone)} routers have one expert, so nothing to share: ask depth whether that one ran."
    notes.extend([said] if alone and said not in notes else [])
    counted = tables(here, told.sql)
    gates = tables(here, told.sql, "weight") if weighed else counted
    rows: list[pd.DataFrame | Pooled] = []
    pools: dict[str, Pool] = {}
    for table, gate in zip(counted, gates) if weighed else ((t, t) for t in counted):
        chosen = gate if table.where["router"] in weighed else table
        if table.router["experts"] > 1 and chosen.counts.any():
            found, pairs = _compared(told, _ordered(told, chosen))
            rows += [*found.information(), found.loads(pools)]
            rows += found.divergences(pairs, "neighbours" if told.numbers else "pairs")
    return settled(rows)


def _ordered(told: Told, table: Table) -> Table:
    """The table with the values in their order."""
    known = [value for value in told.values if value in table.labels]
    return Table(table.router, known, table.counts[:, [table.labels.index(value) for value in known], :])


def _compared(told: Told, table: Table) -> tuple[ByValue, list[tuple[int, int]]]:
    """One router's counts or sums of weights (units, values, experts), and the pairs of values that are set side by side."""
    found, at = ByValue(table, "condition", told.kind), {name: i for i, name in enumerate(table.labels)}
    sides = [(told.values[i], told.values[j]) for i, j in told.pairs]
    return found, [(at[one], at[other]) for one, other in sides if one in at and other in at]


def _sites(frame: pd.DataFrame, known: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """By kind and site: how many routers, mean and largest information beyond the null, and of how many it is a finding."""
    rows = corrected(frame, "condition").merge(known.rename(columns={"name": "module"}), on="router", how="left")
    made = []
    for (kind, site), part in rows.groupby(["subset", rows["block_type"].fillna("router")], sort=True):
        best = part.loc[part["value"].idxmax()]
        made.append({"kind": kind, "block_type": site, "routers": len(part), "found": int((part["q"] <= fdr).sum()),
                     "mean_bits": part["value"].mean(), "most_bits": best["value"], "most_in": best["module"]})  # fmt: skip
    return pd.DataFrame(made, columns=["kind", "block_type", "routers", "found", "mean_bits", "most_bits", "most_in"])


def _verdict(frame: pd.DataFrame, fdr: float) -> Verdict:
    bits = clearest(corrected(frame, "condition"))
    found = bits[bits["q"] <= fdr]
    if found.empty:
        told = ", ".join(f"the {kind}" for kind in bits["subset"].unique())
        follows = (
            f"Nothing that forwards were told ({told}) tells more of the experts than values dealt anew: {saying.most(bits)}"
        )
        return verdict(follows, bits.iloc[0], frame, saying.NOTHING, bits, analyze("load"))
    best = found.loc[found["value"].idxmax()]
    said = [f"the {kind} in {saying.share_of(int((part['q'] <= fdr).sum()), len(part), 'router')}"
            for kind, part in bits.groupby("subset", sort=True)]  # fmt: skip
    follows = (
        f"Routing follows what forwards were told ({'; '.join(said)}), most the {best['subset']} in "
        f"{saying.layer(best, frame)}: {saying.amount(best)} of an assignment beyond chance"
    )
    return verdict(follows, best, frame, LIMITS, found, analyze("load"))


def charts(answer: Answer) -> dict[str, Chart]:
    """Information by layer, and the loads of the router that is told most."""
    made: dict[str, Chart] = {}
    for kind, part in corrected(answer.frames["figures"], "condition").groupby("subset"):
        sql = answer.sql[f"counts by {kind}"]
        made[f"what the {kind} tells"] = layers(part, f"I({kind}; expert), bits beyond chance", sql)
        loads = answer.frames["loads"]
        mine = loads[
            (loads["router"] == part.loc[part["value"].idxmax(), "router"]) & loads["subset"].str.startswith(f"{kind}=")
        ]
        cells = mine.assign(condition=mine["subset"].str.partition("=")[2])
        title = f"Load by {kind}, {mine['stack'].iloc[0]} layer {mine['layer'].iloc[0]}"
        made[f"load by {kind}"] = heatmap(cells, title, sql, x="expert", y="condition")
    sites = answer.frames["sites"]
    if sites["block_type"].nunique() > 1:
        shown = sites.rename(columns={"mean_bits": "value"})
        made["by site"] = bars(shown, "Mean bits beyond chance by site", answer.sql["sites"], "block_type", "kind")
    return made
