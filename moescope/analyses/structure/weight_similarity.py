"""How alike experts are by their weights, and whether those that are alike run together.

The cosines are taken when a trace attaches (`measures`: router_weight_cosine of the rows of the router's matrix,
expert_weight_cosine of a sample of the experts' own parameters; Look-into-MoEs, 2406.18219):

* mean over pairs, and largest pair; chance 0 is that of independent directions. A softmax does not see what all rows of a
  router have in common, and rows that sum to zero have a mean of -1 / (E - 1).
* `... ~ co-activation`: Spearman's correlation over pairs with N_ij / sqrt(N_i N_j), the cosine of their sets of tokens; where
  every pair was kept and k > 1. Null: expert numbers permuted in one of the two tables (Mantel 1967). Intervals: documents.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.decision_sample import Sample
from .._shared.scope import Scope, place
from .coactivation import _tables

NAMES = {"router_weight_cosine": "router weight cosine", "expert_weight_cosine": "expert weight cosine"}
SOURCE = "Look-into-MoEs 2406.18219"
PERMUTATIONS, DRAWS = 999, 200


def similarity_sql(here: Scope) -> str:
    """Cosines of weights by pair of experts, and their means."""
    return (
        "select router, name, expert, estimator, value, (extra->>'other')::int as other from measures "
        f"where run = {here.run} and name in ({', '.join(repr(n) for n in NAMES)}) order by router, name, expert, other"
    )


def likeness(here: Scope, taken: Sample, notes: list[str]) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Figures per router and kind of weights, and the pairs (stack, layer, router, expert, other, columns of cosines)."""
    frame = here.store.sql(similarity_sql(here)).df()
    frame = frame[frame["router"].isin(here.routers.index)]
    frame = frame.drop_duplicates(["router", "name", "estimator", "expert", "other"])  # a run that was resumed closes twice
    if frame.empty:
        notes.append(
            "No similarity of weights: this run has none; a trace made with this version measures it when it attaches."
        )
        return [], pd.DataFrame()
    rows = []
    chosen = {where["router"]: (there, picked) for where, _, there, picked in taken.routers()}
    for (router, name), part in frame.groupby(["router", "name"]):
        row = here.routers.loc[router]
        pairs = part[part["estimator"] == "pair"]
        rows.append(_level(place(row), NAMES[str(name)], part, pairs))
        experts = int(row["experts"])
        if len(pairs) == experts * (experts - 1) // 2 > 2 and router in chosen and chosen[router][1].shape[1] > 1:
            there, picked = chosen[router]
            tables = _tables(picked, taken.unit[there], taken.units, experts)
            rows += _together(place(row), NAMES[str(name)], _square(pairs, experts), tables)
    return rows, _frame(here, frame)


def _level(where: dict[str, Any], name: str, part: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    mean = float(part.loc[part["estimator"] == "mean over pairs", "value"].iloc[0])
    values = {"mean over pairs": mean, "largest pair": float(pairs["value"].max())}
    frames = [
        figures(where, name, v, estimator=form, source=SOURCE, chance=0.0, n=len(pairs), null_name="none: weights, no sample")
        for form, v in values.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _square(pairs: pd.DataFrame, experts: int) -> Array:
    table = np.eye(experts)
    i, j = pairs["expert"].to_numpy(int), pairs["other"].to_numpy(int)
    table[i, j] = table[j, i] = pairs["value"].to_numpy(float)
    return table


def ochiai(table: Array, load: Array) -> Array:
    """N_ij / sqrt(N_i N_j) of (..., E, E) pairs and (..., E) loads; 0 where an expert never ran."""
    norm = np.sqrt(load[..., :, None] * load[..., None, :])
    return np.divide(table, norm, out=np.zeros_like(table, dtype=float), where=norm > 0)


def mantel(a: Array, b: Array, permutations: int = PERMUTATIONS) -> tuple[float, Array]:
    """Spearman's correlation over the pairs of two symmetric (E, E) tables, and of the second with its experts permuted."""
    upper, rng = np.triu_indices(len(a), 1), np.random.default_rng(0)
    first = _ranked(a[upper][None])
    orders = [rng.permutation(len(b)) for _ in range(permutations)]
    mixed = _ranked(np.stack([b[np.ix_(order, order)][upper] for order in [np.arange(len(b)), *orders]]))
    every = (mixed * first).sum(1)
    return float(every[0]), every[1:]


def _ranked(values: Array) -> Array:
    """(rows, n): ranks, centred, of length 1 (0 where all are equal)."""
    ranks = stats.rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(1, keepdims=True))
    return np.asarray(np.divide(ranks, norm, out=np.zeros_like(ranks), where=norm > 0))


def _together(where: dict[str, Any], name: str, cosine: Array, by_unit: Array) -> list[pd.DataFrame]:
    total = by_unit.sum(0)
    value, null = mantel(cosine, ochiai(total[:, :-1], total[:, -1]))
    drawn = st.resampled(st.bootstrap_weights(len(by_unit), DRAWS), by_unit)
    upper = np.triu_indices(len(cosine), 1)
    draws = (_ranked(ochiai(drawn[:, :, :-1], drawn[:, :, -1])[:, upper[0], upper[1]]) * _ranked(cosine[upper][None])).sum(1)
    return [
        figures(
            where,
            f"{name} ~ co-activation",
            value,
            estimator="Spearman",
            source="Mantel 1967",
            chance=0.0,
            draws=draws,
            null=null,
            null_name="expert numbers permuted",
            side="both",
            bounds=(-1, 1),
            n=len(upper[0]),
            units=len(by_unit),
        )
    ]


def _frame(here: Scope, frame: pd.DataFrame) -> pd.DataFrame:
    pairs = frame[frame["estimator"] == "pair"]
    wide = pairs.pivot_table(index=["router", "expert", "other"], columns="name", values="value").reset_index()
    wide = wide.rename(columns=NAMES).rename_axis(columns=None).astype({"expert": int, "other": int})
    where = here.routers[["stack", "layer", "router"]].reset_index(drop=True)
    return where.merge(wide, on="router").sort_values(["stack", "layer", "router", "expert", "other"], ignore_index=True)
