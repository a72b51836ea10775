"""Per modality, LIMoE's two entropies (2206.02770), in nats; importance; the dropped share with its interval.

* `local entropy`: mean over the modality's tokens of H(p(.|x)), LIMoE's Ω_local: small when routers are sure.
* `global entropy`: H of the mean probabilities of the modality, -Ω_global: large when it uses many experts; chance ln E.
  Needs the probabilities of all experts, so router logits in the store. At least the local one; their difference is the mutual
  information of token and expert under the router's own probabilities.
* `importance CV^2` (V-MoE 2106.05974, Shazeer 1701.06538): Imp_e sums the router's probabilities (`all probabilities`, from
  stored logits) or the weights of assignments that ran (`weights`); (sd / mean)^2 over experts, 0 when even.
* `dropped share`: chosen but not run, of all chosen. Documents that compete for the same buffers drop each other's tokens: its
  interval takes the competition as it was.

Intervals: documents. Null: none, each is a level beside its chance.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .answer import figures
from .scope import Scope, place

LIMOE = "LIMoE 2206.02770, section 2.2"
LEVEL = "none: a level beside its chance"


def local(here: Scope, frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Mean entropy of decisions per router and modality, from sums (router, modality, unit, entropy, n)."""
    rows = []
    for (router, modality), part in frame[frame["n"] > 0].groupby(["router", "modality"]):
        row = here.routers.loc[router]
        counts = part[["entropy", "n"]].to_numpy(float)
        rows.append(_level(row, f"modality={modality}", "local entropy (nats)", counts, _mean, np.log(row["experts"])))
    return rows


def _mean(counts: Array) -> Array:
    return np.asarray(counts[..., 0] / np.maximum(counts[..., 1], 1))


def global_(row: pd.Series, modality: str, sums: Array, n: Array) -> pd.DataFrame:
    """From sums of probabilities (units, E) and tokens (units,) of one modality."""
    nats = np.log(2)
    counts = np.c_[sums, n][n > 0]
    return _level(row, f"modality={modality}", "global entropy (nats)", counts, lambda c: st.entropy(c[..., :-1]) * nats,
                  np.log(row["experts"]))  # fmt: skip


def importance(row: pd.Series, form: str, sums: Array, n: Array) -> pd.DataFrame:
    """CV^2 of sums (units, E) over experts."""
    counts = np.c_[sums, n][n > 0]
    source = "V-MoE 2106.05974" if form == "all probabilities" else "Shazeer et al. 1701.06538"
    made = _level(row, "", "importance CV^2", counts, lambda c: st.variation(c[..., :-1]) ** 2, 0.0)
    return made.assign(estimator=form, source=source)


def dropped(here: Scope, sql: dict[str, str]) -> list[pd.DataFrame]:
    """Of every router with a capacity, or that dropped anything."""
    limited = {r for (r,) in here.store.rows(
        f"select distinct router from pools where run = {here.run} union select router from load_rollup "
        f"where run = {here.run} and dropped > 0")}  # fmt: skip
    limited &= set(here.routers.index)
    if not limited:
        return []
    sql["dropped"] = f"""with units as ({here.units_sql()})
select units.unit, router, count(*) filter (dropped) as lost, count(*) as n
from assignments a join tokens t using (token) join units using (sequence)
where a.run = {here.run} and router in ({", ".join(map(str, sorted(limited)))}) group by all order by router, unit"""
    rows = []
    for router, part in here.store.sql(sql["dropped"]).df().groupby("router"):
        row = here.routers.loc[router]
        made = _level(row, "", "dropped share", part[["lost", "n"]].to_numpy(float), _mean, 0.0)
        rows.append(made.assign(source="chosen but not run, of all chosen", null="none: a count"))
    return rows


def _level(row: pd.Series, subset: str, name: str, counts: Array, statistic: Any, chance: float) -> pd.DataFrame:
    """A figure from sums by document (units, columns), the last column counting what they are of."""
    most = {"dropped share": 1.0, "importance CV^2": float(row["experts"]) - 1}.get(name, float(np.log(row["experts"])))
    draws = statistic(st.resampled(st.bootstrap_weights(len(counts)), counts))
    return figures(place(row) | {"subset": subset}, name, statistic(counts.sum(0)), source=LIMOE, chance=chance, draws=draws,
                   bounds=(0, most), null_name=LEVEL, n=int(counts[:, -1].sum()), units=len(counts))  # fmt: skip
