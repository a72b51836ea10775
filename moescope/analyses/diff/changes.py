"""What changed between two runs, per router, over the tokens that both decided about.

* `set changed`: the chosen experts differ as a set; `order changed`: the same set in another order of weight;
  `first choice changed`: the largest weight is another expert's.
* `router saturation` (OLMoE 2409.02060, 5.1): |T(x) in this run and T'(x) in the other| / k, mean; chance k/E.
* `set changed by margin`: within fifths of this run's margin (how far the last chosen stood above the first left out).

Null: the other run's decisions shuffled among the tokens of a document, which holds both runs' loads: what two routers that
only agree about documents would do. Chance of `set changed`: 1 - 1 / C(E, k). Intervals: bootstrap over documents.
"""

from math import comb
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.decision_sample import Sample, by_unit, one_hot, shuffles
from .._shared.scope import place

NULL = "the other run's decisions shuffled within documents"
FIFTHS = 5
OF_RANKS = ("order changed", "first choice changed")
SHUFFLES = 19


def changes(chosen: Array, other: Array, experts: int) -> dict[str, Array]:
    """Per token: set, order and first choice changed (booleans), and the overlap |T and T'| / k."""
    hot, hot_other = one_hot(chosen, experts), one_hot(other, experts)
    same_set = (hot == hot_other).all(axis=1)
    width = max(chosen.shape[1], other.shape[1])
    a, b = (np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1) for x in (chosen, other))
    k = np.maximum(hot.sum(1), 1)
    return {
        "set changed": ~same_set,
        "order changed": same_set & (a != b).any(axis=1),
        "first choice changed": a[:, 0] != b[:, 0],
        "router saturation": (hot & hot_other).sum(1) / k,
    }


class Pair:
    """One router of both runs over the tokens they share."""

    def __init__(self, taken: Sample, router: int, chosen: Array, other: Array, rows: Array, ranked: bool = True) -> None:
        row = taken.scope.routers.loc[router]
        self.where = place(row)
        looked = (chosen >= 0).any(axis=1) & (other >= 0).any(axis=1)
        self.rows, self.chosen, self.other = rows[looked], chosen[looked], other[looked]
        self.experts = max(int(row["experts"]), int(other.max(initial=-1)) + 1)
        self.taken, self.unit = taken, taken.unit[rows[looked]]
        self.changes = {n: v for n, v in changes(self.chosen, self.other, self.experts).items() if ranked or n not in OF_RANKS}

    def figures(self, margins: Array) -> list[pd.DataFrame]:
        """Rows of what changed in this router; none where no token was decided in both runs."""
        if not len(self.rows):
            return []
        k = round(float((self.chosen >= 0).sum(1).mean()))
        chance = {
            "set changed": 1 - 1 / comb(self.experts, k),
            "order changed": np.nan,
            "first choice changed": 1 - 1 / self.experts,
            "router saturation": k / self.experts,
        }
        nulls = [changes(self.chosen, self.other[order], self.experts) for order in shuffles(self.unit, SHUFFLES)]
        rows = [
            self._figure(name, value, chance[name], [n[name].mean() for n in nulls]) for name, value in self.changes.items()
        ]
        margin = margins[self.rows]
        (known,) = np.nonzero(np.isfinite(margin))
        if len(known) >= FIFTHS:
            fifth = np.argsort(np.argsort(margin[known], kind="stable"), kind="stable") * FIFTHS // len(known)
            for number in range(FIFTHS):
                mine = known[fifth == number]
                subset = f"margin fifth {number + 1}: {margin[mine].min():.3g} to {margin[mine].max():.3g}"
                rows.append(
                    self._figure(
                        "set changed by margin",
                        self.changes["set changed"],
                        chance["set changed"],
                        [n["set changed"][mine].mean() for n in nulls],
                        mine,
                        subset,
                    )
                )
        return rows

    def _figure(
        self, name: str, value: Array, chance: float, null: Any, rows: Any = slice(None), subset: str = ""
    ) -> pd.DataFrame:
        value, unit = value[rows].astype(float), self.unit[rows]
        both = by_unit(unit, self.taken.units, np.stack([value, np.ones(len(value))], axis=1))
        drawn = st.resampled(st.bootstrap_weights(len(both)), both)
        draws = drawn[:, 0] / np.maximum(drawn[:, 1], 1)
        source = "OLMoE 2409.02060, section 5.1" if name == "router saturation" else "counted"
        return figures(
            self.where | {"subset": subset},
            name,
            value.mean(),
            source=source,
            chance=chance,
            draws=draws,
            null=null,
            null_name=NULL,
            tail="t",
            side="both",
            bounds=(0, 1),
            n=len(value),
            units=len(np.unique(unit)),
        )

    def decisions(self, margins: Array, most: int = 500) -> pd.DataFrame:
        """Decisions whose set changed, those with the largest margin first: token, experts of both runs, margin."""
        (changed,) = np.nonzero(self.changes["set changed"])
        margin = margins[self.rows[changed]]
        best = changed[np.argsort(-np.nan_to_num(margin, nan=-np.inf), kind="stable")[:most]]
        frame = self.taken.tokens.iloc[self.rows[best]][["token", "sequence", "position", "vocab_id"]].reset_index(drop=True)
        said = [[" ".join(str(e) for e in row if e >= 0) for row in table[best]] for table in (self.chosen, self.other)]
        return frame.assign(**self.where, experts=said[0], other=said[1], margin=margins[self.rows[best]])

    def tokens(self) -> pd.DataFrame:
        """Per vocabulary id that occurs 10 times: how often its set changed, against what its documents give it."""
        changed = self.changes["set changed"].astype(float)
        seen = np.maximum(np.bincount(self.unit, minlength=self.taken.units), 1)
        of_document = (np.bincount(self.unit, changed, minlength=self.taken.units) / seen)[self.unit]
        frame = pd.DataFrame(
            {"vocab_id": self.taken.tokens["vocab_id"].to_numpy()[self.rows], "changed": changed, "chance": of_document}
        )
        found = (
            frame.dropna().groupby("vocab_id").agg(sum=("changed", "sum"), n=("changed", "count"), chance=("chance", "mean"))
        )
        found = found.query("n >= 10").reset_index()
        p = stats.binom.sf(found["sum"] - 1, found["n"], found["chance"])
        return found.assign(**self.where, value=found["sum"] / found["n"], p=p)
