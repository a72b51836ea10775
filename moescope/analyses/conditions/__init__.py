"""Specialization by condition: do experts follow the timestep, the class, the task or whatever else a forward was told?

For a condition C that forwards (or sequences in them) were told, value c, and a router with assignments N_ce that ran:

* `I(condition; expert)` in bits: plug-in (Shannon 1948), and less its mean under the null. It is DiT-MoE's question (2407.11633,
  section 4.3: experts prefer timesteps, less so classes) as one number with a null.
* `share of load by condition`: N_ce / sum_e N_ce; chance: the expert's share under all values.
* `JSD`: Jensen-Shannon divergence (Lin 1991) in bits of the loads of two values: of neighbours where values are numbers, of all
  pairs of few words.

Of routers whose experts all run for every token (dense, soft), N sums weights in place of counting. More than 24 different
numbers are put into ten bins. Frame `sites`: by kind and by site in the block (adapters: attention.q_proj, ...), means over routers.

Null: values dealt anew. What a document did at one value stays whole; sets of values are dealt among documents with equally
many, then shuffled within each document, so it fits classes as well as timesteps that every document goes through. Load and the
routing of each document are held. Intervals: documents drawn anew (`statistics.over_documents`'s recipe).
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
from .._shared.chart_forms import bars, heatmap, layers
from .._shared.document_counts import Table, tables
from .._shared.scope import Scope, scope
from .told import Told, choose, gated, names

INFORMATION = "I(condition; expert) (bits)"
SHARE = "share of load by condition"
NULL = "values dealt anew to what documents did at one value"
DRAWS = 499
CELLS = 4_000_000  # of permuted tables in memory


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
        raise AnalysisError(f"no router of run {here.run} has two experts to share a load; ask depth, which says what was skipped")
    frame = gather(rows)
    loads = frame[frame["name"] == SHARE].reset_index(drop=True)
    sites = _sites(frame, names(here), fdr)
    sql = dict.fromkeys(("figures", "loads", "sites"), next(iter(sql.values()))) | sql
    frames = {"figures": frame, "sites": sites, "loads": loads}
    reading = _reading(frame, names(here), fdr)
    return Answer("conditions", "Specialization by condition", reading, here.run, frames, sql, notes + few_units(frame), charts)


def _by(here: Scope, told: Told, notes: list[str]) -> list[pd.DataFrame]:
    weighed = gated(here)
    alone = [row["name"] for _, row in here.routers.iterrows() if row["experts"] < 2]
    said = f"{len(alone)} routers have one expert, so nothing to share: ask depth whether that one ran."
    notes.extend([said] if alone and said not in notes else [])
    counted = tables(here, told.sql)
    gates = tables(here, told.sql, "weight") if weighed else counted
    rows = []
    for table, gate in zip(counted, gates) if weighed else ((t, t) for t in counted):
        chosen = gate if table.where["router"] in weighed else table
        if table.router["experts"] > 1 and chosen.counts.any():
            rows += _figures(told, _ordered(told, chosen), table.counts.sum((1, 2)))
    return rows


def _ordered(told: Told, table: Table) -> Table:
    """The table with the values in their order."""
    known = [value for value in told.values if value in table.labels]
    return Table(table.router, known, table.counts[:, [table.labels.index(value) for value in known], :])


def _figures(told: Told, table: Table, assignments: Array) -> list[pd.DataFrame]:
    """Figures of one router, from counts or sums of weights (units, values, experts)."""
    counts, one = table.counts, (table.counts.any(axis=2).sum(axis=1) <= 1).all()
    draws = st.document_draws(counts, table.home if one else None)
    null = st.dealt(counts, int(np.clip(CELLS // counts[0].size, 199, DRAWS)))
    units, n = int(counts.any(axis=(1, 2)).sum()), int(assignments.sum())
    return [*_information(told, table, draws, null, n, units), _loads(told, table, draws, null), *_steps(told, table, draws, null)]


def _information(told: Told, table: Table, draws: Array, null: Array, n: int, units: int) -> list[pd.DataFrame]:
    value, drawn, dealt = (st.mutual_information(x) for x in (table.total, draws, null))
    common: dict[str, Any] = {"draws": drawn, "null_name": NULL, "chance": 0.0, "bounds": (0, np.inf), "n": n, "units": units}
    where = table.where | {"subset": told.kind}
    bias = dealt.mean()
    return [
        figures(where, INFORMATION, value, estimator="plug-in", source="Shannon 1948", null=dealt, **common),
        figures(where, INFORMATION, value - bias, estimator="less null mean", source="Shannon 1948", null=dealt - bias, **common),
    ]


def _loads(told: Told, table: Table, draws: Array, null: Array) -> pd.DataFrame:
    value, expert = (x.ravel() for x in np.indices(table.total.shape))
    subset = np.array([f"{told.kind}={name}" for name in table.labels], dtype=object)[value]
    units, n = (table.counts.any(axis=2).sum(axis=0), table.total.sum(axis=1).round().astype(int))
    return figures(
        table.where | {"expert": expert, "subset": subset}, SHARE, st.shares(table.total),
        source="share of the value's assignments", chance=st.shares(table.total.sum(0))[expert], draws=st.shares(draws),
        null=st.shares(null), null_name=NULL, side="both", tail="t", bounds=(0, 1), n=n[value], units=units[value],
    )  # fmt: skip


def _steps(told: Told, table: Table, draws: Array, null: Array) -> list[pd.DataFrame]:
    at = {name: i for i, name in enumerate(table.labels)}
    pairs = [(at[told.values[i]], at[told.values[j]]) for i, j in told.pairs if told.values[i] in at and told.values[j] in at]
    if not pairs:
        return []
    a, b = ([pair[i] for pair in pairs] for i in (0, 1))
    value, drawn, dealt = (st.jensen_shannon(x[..., a, :], x[..., b, :]) for x in (table.total, draws, null))
    names = [f"{told.kind}={table.labels[i]}, {table.labels[j]}" for i, j in pairs]
    there, n = table.counts.any(axis=2), table.total.sum(axis=1)
    return [
        figures(
            table.where | {"subset": np.array(names, dtype=object)}, "JSD (bits)", value, source="Lin 1991", chance=0.0,
            estimator="neighbours" if told.numbers else "pairs", draws=drawn, null=dealt, null_name=NULL, tail="t", bounds=(0, 1),
            n=(n[a] + n[b]).round().astype(int), units=(there[:, a] | there[:, b]).sum(axis=0),
        )  # fmt: skip
    ]


def _told_bits(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["name"] == INFORMATION) & (frame["estimator"] == "less null mean")]


def _sites(frame: pd.DataFrame, known: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """By kind and site: how many routers, mean and largest information beyond the null, and of how many it is a finding."""
    rows = _told_bits(frame).merge(known.rename(columns={"name": "module"}), on="router", how="left")
    made = []
    for (kind, site), part in rows.groupby(["subset", rows["block_type"].fillna("router")], sort=True):
        best = part.loc[part["value"].idxmax()]
        made.append({"kind": kind, "block_type": site, "routers": len(part), "found": int((part["q"] <= fdr).sum()),
                     "mean_bits": part["value"].mean(), "most_bits": best["value"], "most_in": best["module"]})  # fmt: skip
    return pd.DataFrame(made, columns=["kind", "block_type", "routers", "found", "mean_bits", "most_bits", "most_in"])


def _reading(frame: pd.DataFrame, known: pd.DataFrame, fdr: float) -> str:
    bits = _told_bits(frame)
    said = []
    for kind, part in bits.groupby("subset", sort=True):
        best, found = part.loc[part["value"].idxmax()], int((part["q"] <= fdr).sum())
        if not found:
            said.append(f"The {kind} tells no more of the experts than values dealt anew (least p {part['p'].min():.2g})")
            continue
        said.append(
            f"The {kind} tells up to {best['value']:.3f} bits of an assignment beyond chance ({best['stack']} layer "
            f"{best['layer']}), and something in {found} of {len(part)} routers"
        )
    return "; ".join([said[0], *(s[0].lower() + s[1:] for s in said[1:])]) + "."


def charts(answer: Answer) -> dict[str, Chart]:
    """Information by layer, and the loads of the router that is told most."""
    made: dict[str, Chart] = {}
    for kind, part in _told_bits(answer.frames["figures"]).groupby("subset"):
        sql = answer.sql[f"counts by {kind}"]
        made[f"what the {kind} tells"] = layers(part, f"I({kind}; expert), bits beyond chance", sql)
        loads = answer.frames["loads"]
        mine = loads[(loads["router"] == part.loc[part["value"].idxmax(), "router"]) & loads["subset"].str.startswith(f"{kind}=")]
        cells = mine.assign(condition=mine["subset"].str.partition("=")[2])
        title = f"Load by {kind}, {mine['stack'].iloc[0]} layer {mine['layer'].iloc[0]}"
        made[f"load by {kind}"] = heatmap(cells, title, sql, x="expert", y="condition")
    sites = answer.frames["sites"]
    if sites["block_type"].nunique() > 1:
        shown = sites.rename(columns={"mean_bits": "value"})
        made["by site"] = bars(shown, "Mean bits beyond chance by site", answer.sql["sites"], "block_type", "kind")
    return made
