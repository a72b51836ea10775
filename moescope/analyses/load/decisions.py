"""How sure the routers were, and what was dropped.

* routing entropy (nats) of a decision, and over ln E: means over tokens; margin: the least chosen less the best unchosen
  probability, mean; `router z-loss`: mean (log sum exp z)^2 (ST-MoE 2202.08906), beside its value for logits of 0.
* local entropy per modality, and the dropped share: `_shared/modality_entropies.py`.
"""

import numpy as np
import pandas as pd

from ... import statistics as st
from .._shared.answer import figures
from .._shared.modality_entropies import dropped, local
from .._shared.scope import Scope, place
from .._shared.verdicts import saying


def decision_figures(here: Scope, sql: dict[str, str], notes: list[str]) -> list[pd.DataFrame]:
    """Means over tokens of entropy, margin and squared log-sum-exp; local entropy and dropped share."""
    sql["decisions"] = f"""with units as ({here.units_sql()})
select units.unit, router, tokens.unit as modality, count(*) as decisions, count(entropy) filter (isfinite(entropy)) as n,
  sum(entropy) filter (isfinite(entropy)) as entropy, count(margin) filter (isfinite(margin)) as margins,
  sum(margin) filter (isfinite(margin)) as margin, count(log_sum_exp) filter (isfinite(log_sum_exp)) as zs,
  sum(log_sum_exp::double ** 2) filter (isfinite(log_sum_exp)) as z
from decisions join tokens using (token) join units using (sequence) where decisions.run = {here.run} group by all"""
    frame = here.store.sql(sql["decisions"]).df().fillna({"entropy": 0, "margin": 0, "z": 0, "modality": "unknown"})
    frame = frame.sort_values(["router", "modality", "unit"])  # so that documents are drawn alike every time
    bad = int(frame["decisions"].sum() - frame["n"].sum())
    if bad:
        why = "no finite entropy (NaN logits, or a router without logits)"
        notes.append(f"{saying.counted(bad, 'decision')} {'has' if bad == 1 else 'have'} {why}: left out of its mean.")
    whole = frame.drop(columns="modality").groupby(["router", "unit"], as_index=False).sum()
    rows = [_means(here.routers.loc[r], part) for r, part in whole.groupby("router")]
    return [*rows, *local(here, frame), *dropped(here, sql)]


def _means(router: pd.Series, part: pd.DataFrame) -> pd.DataFrame:
    where = place(router)
    weights = st.bootstrap_weights(len(part))
    most = np.log(router["experts"])
    wanted = [("routing entropy (nats)", "entropy", "n", 1.0, most, "Shannon entropy of a decision's probabilities, mean"),
              ("normalized routing entropy", "entropy", "n", most or 1.0, 1.0, "entropy over ln E, mean"),
              ("margin", "margin", "margins", 1.0, 0.0, "p of the last chosen less p of the first left out, mean"),
              ("router z-loss", "z", "zs", 1.0, np.log(router["experts"]) ** 2, "ST-MoE 2202.08906")]  # fmt: skip
    rows = []
    for name, total, count, scale, chance, source in wanted:
        sums = part[[total, count]].to_numpy(float)
        if sums[:, 1].sum() == 0:
            continue
        draws = st.resampled(weights, sums)
        value = sums[:, 0].sum() / sums[:, 1].sum() / scale
        means = draws[:, 0] / np.maximum(draws[:, 1], 1) / scale
        rows.append(
            figures(
                where,
                name,
                value,
                source=source,
                chance=chance,
                draws=means,
                null_name="none: a mean beside its chance level",
                n=int(sums[:, 1].sum()),
                units=len(part),
            )
        )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
