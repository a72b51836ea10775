"""Load and entropy: how evenly are the experts used, how sure are the routers, and what is dropped?

Load c_e counts the assignments of expert e that ran; its share is p_e = c_e / sum c. By router, over everything and by a
sequence label, by phase and by position (0, 1-3, 4-15, ...):

* load entropy H = -sum p log2 p bits, and H / log2 E; Gini; CV = sd(c) / mean(c); MaxVio = max(c) / mean(c) - 1
  (DeepSeek, arXiv 2408.15664); dead experts (c = 0) and cold ones (under a tenth of the even share), beside how many there
  would be among as many even and independent assignments: few assignments leave some experts unused by luck.
* routing entropy, margin, z-loss: see `decisions.py`; entropies per modality, importance, dropped share:
  `_shared/modality_entropies.py`; balancing losses: `balancing_losses.py`; other capacities: `capacity.py`.

Null of the load figures: the expert numbers shuffled within each document, which keeps how concentrated each document is and
forgets which experts it used. A router whose documents each use few but different experts is even by that null.
Intervals: bootstrap over documents, of the counts.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...store import Store
from .._shared.answer import Answer, Chart, few_units, figures, gather
from .._shared.arrays.document_counts import Table, load_sql, tables
from .._shared.chart_forms import heatmap, layers
from .._shared.modality_entropies import importance
from .._shared.scope import Scope, scope
from .._shared.verdicts import saying
from .._shared.verdicts.verdict import Verdict, analyze, verdict
from . import balancing_losses, capacity
from .decisions import decision_figures

COLD = 0.1  # of the even share
SHUFFLES = 199
DOCUMENTS = 1024  # more are shuffled in as many groups
MOST = 10_000_000  # assignments by phase and position
MEASURES: dict[str, tuple[str, Any]] = {
    "load entropy (bits)": ("Shannon entropy of the load", st.entropy),
    "normalized load entropy": ("entropy over log2 E", lambda c: st.entropy(c) / np.log2(max(c.shape[-1], 2))),
    "Gini of load": ("Gini 1912", st.gini),
    "CV of load": ("Shazeer et al. 1701.06538", st.variation),
    "MaxVio": ("DeepSeek 2408.15664", st.max_violation),
    "dead experts": ("experts that never ran", lambda c: (c == 0).sum(-1).astype(float)),
    "cold experts": (
        "experts under a tenth of the even share",
        lambda c: (st.shares(c) * c.shape[-1] < COLD).sum(-1).astype(float),
    ),
}
SEEN: dict[str, Any] = {"dead experts": 0.0, "cold experts": COLD}  # share of the even load that an expert stays under
EVEN: dict[str, Any] = {"load entropy (bits)": np.log2, "normalized load entropy": lambda e: 1.0}
NULL = "expert numbers shuffled within each document"


def run(store: Store, run: int | None = None, by: str | None = None) -> Answer:
    """Load of every router, over everything, by sequence label `by` (default: domain, class, or the first there is)."""
    here = scope(store, run)
    notes = list(here.notes)
    sql = dict.fromkeys(("figures", "experts"), load_sql(here))
    rows, experts = [], []
    for table, gates in zip(tables(here, sql["figures"]), tables(here, sql["figures"], "weight")):
        draws = st.document_draws(table.counts[:, 0, :])
        rows.append(balance(table, 0, "", draws))
        rows.append(importance(table.router, "weights", gates.counts[:, 0, :], table.counts[:, 0, :].sum(1)))
        experts.append(_experts(table, draws))
    rows += _labels(here, by, sql, notes)
    rows += _splits(here, sql, notes)
    rows += decision_figures(here, sql, notes)
    rows += balancing_losses.figures_of(here, notes)
    frames = {"experts": gather(experts)}
    if here.ranked_or_note("what capacity would drop", notes):
        capacities, frames["capacity"], sql["capacity"] = capacity.what_if_figures(here, notes)
        rows += capacities
    frame = gather(rows)
    frames = {"figures": frame, **frames}
    return Answer("load", "Load and entropy", _verdict(frame), here.run, frames, sql, notes + few_units(frame), charts)


def balance(table: Table, label: int, subset: str, draws: Any) -> pd.DataFrame:
    """The figures of MEASURES for one label of a table, with their values in draws (draws, experts) of the counts."""
    counts = table.counts[:, label, :]
    units = int((counts.sum(1) > 0).sum())
    null = _shuffled(counts)
    total, n = counts.sum(0), int(counts.sum())
    frames = []
    for side, names in (("less", [*EVEN]), ("greater", [m for m in MEASURES if m not in EVEN])):
        value, drawn, shuffled = (np.stack([MEASURES[m][1](x) for m in names], axis=-1) for x in (total, draws, null))
        even = np.array(
            [EVEN[m](len(total)) if m in EVEN else unlucky(SEEN[m], len(total), n) if m in SEEN else 0.0 for m in names]
        )
        top = even if side == "less" else np.full(len(names), np.inf)
        sources = np.array([MEASURES[m][0] for m in names], dtype=object)
        where = table.where | {"subset": subset}
        frames.append(figures(where, np.array(names, dtype=object), value, source=sources, chance=even, draws=drawn,
                              null=shuffled, null_name=NULL, side=side, bounds=(0, top), n=n, units=units))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def unlucky(share: float, experts: int, n: int) -> float:
    """Experts expected at no more than (0), or under, `share` of the even load among n assignments that all take alike."""
    from scipy import stats  # half a second to load

    most = 0 if not share else np.ceil(share * n / experts) - 1
    return float(experts * stats.binom.cdf(most, n, 1 / experts))


def _shuffled(counts: Any) -> Any:
    """(SHUFFLES, experts): totals after shuffling expert numbers within each document."""
    counts, _ = st.grouped(counts[counts.sum(1) > 0], None, DOCUMENTS, DOCUMENTS)
    counts = counts.astype(np.float32)
    return np.stack([np.take_along_axis(counts, order, axis=1).sum(0) for order in _orders(*counts.shape)]).astype(float)


@lru_cache(maxsize=4)
def _orders(units: int, experts: int) -> list[Any]:
    """(units, experts): columns of every row shuffled, SHUFFLES times."""
    rng = np.random.default_rng(0)
    return [rng.random((units, experts), dtype=np.float32).argsort(axis=1).astype(np.int16) for _ in range(SHUFFLES)]


def _experts(table: Table, draws: Any) -> pd.DataFrame:
    counts = table.counts[:, 0, :]
    units, experts = int((counts.sum(1) > 0).sum()), counts.shape[1]
    draws, null = st.shares(draws), st.shares(_shuffled(counts))
    where = table.where | {"expert": np.arange(experts)}
    return figures(
        where,
        "share of load",
        st.shares(counts.sum(0)),
        source="share of assignments",
        chance=1 / experts,
        draws=draws,
        null=null,
        null_name=NULL,
        side="both",
        bounds=(0, 1),
        n=counts.sum(0).astype(int),
        units=units,
    )


def _labels(here: Scope, by: str | None, sql: dict[str, str], notes: list[str]) -> list[pd.DataFrame]:
    if (kind := here.kind_or_note(by, notes, "No load by label")) is None:
        return []
    sql["label"] = load_sql(here, kind)
    rows = []
    for table in tables(here, sql["label"]):
        weights = st.bootstrap_weights(len(table.counts), strata=table.home)
        drawn = [st.resampled(weights, table.counts[:, i, :]) for i in range(len(table.labels))]
        rows += [balance(table, i, f"{kind}={label}", drawn[i]) for i, label in enumerate(table.labels)]
    return rows


_SPLITS = {
    "phase": "f.phase",
    "position": "case when position = 0 then 0 else 1 + floor(log2(position))::int // 2 end",
}


def _split_sql(here: Scope, split: str, share: float = 1.0) -> str:
    return f"""with units as ({here.units_sql()})
select units.unit, router, {_SPLITS[split]} as label, expert, count(*) as n
from assignments a join tokens t using (token) join units using (sequence) join forwards f on f.forward = a.forward
where a.run = {here.run} and not dropped and hash(sequence) % 10000 < {round(share * 10000)} group by all"""


def _splits(here: Scope, sql: dict[str, str], notes: list[str]) -> list[pd.DataFrame]:
    """Load by phase, where there are several, and by position (of a share of the sequences, where there are many)."""
    phases = here.store.rows(f"select count(distinct phase) from forwards where run = {here.run}")[0][0]
    every = here.store.rows(f"select sum(assignments) from load_rollup where run = {here.run}")[0][0]
    share = min(1.0, MOST / max(1, int(every)))
    if share < 1:
        notes.append(f"Load by phase and position is counted on {share:.1%} of the sequences, chosen by hash.")
    rows = []
    for split in ["phase"] * (phases > 1) + ["position"]:
        sql[split] = _split_sql(here, split, share)
        rows += _subsets(here, sql[split], split)
    return rows


def _subsets(here: Scope, sql: str, split: str) -> list[pd.DataFrame]:
    rows = []
    for table in tables(here, sql):
        if len(table.labels) < 2:
            return []
        drawn = [st.document_draws(table.counts[:, i, :]) for i in range(len(table.labels))]
        names = [f"{split}={_bucket(label) if split == 'position' else label}" for label in table.labels]
        rows += [balance(table, i, name, drawn[i]) for i, name in enumerate(names)]
    return rows


def _bucket(label: str) -> str:
    number = int(label)
    return "0" if number == 0 else f"{4 ** (number - 1)}-{4**number - 1}"


def _verdict(frame: pd.DataFrame) -> Verdict:
    whole = frame[frame["subset"] == ""]
    even = whole[whole["name"] == "normalized load entropy"].sort_values("value")
    found = even[even["q"] <= saying.FDR]
    least, uneven = (found if len(found) else even).iloc[0], len(found)
    how = f"{saying.amount(least, '%')} of the entropy of even load in {saying.layer(least, frame)}"
    dead = whole[whole["name"] == "dead experts"]
    never = int(dead["value"].sum())
    ran = f"{saying.counted(never, 'expert')} never ran" if never else "every expert ran"
    follows = (
        f"Load is uneven in {saying.share_of(uneven, len(even), 'router')}, most with {how}, and {ran}" if uneven
        else f"Load is as even as where experts are shuffled within documents, least with {how}, and {ran}"
    )  # fmt: skip
    limits = "it does not show that an uneven load costs the model anything, nor what its experts are for"
    return verdict(follows, least, frame, limits, even, analyze("specialization"))


def charts(answer: Answer) -> dict[str, Chart]:
    """Load entropy by layer, and the share of every expert."""
    whole = answer.figures("normalized load entropy", subset="")
    return {
        "load entropy by layer": layers(whole, "Normalized load entropy (1 = even)", answer.sql["figures"]),
        "share of load": heatmap(answer.frames["experts"], "Share of load by layer and expert", answer.sql["experts"]),
    }
