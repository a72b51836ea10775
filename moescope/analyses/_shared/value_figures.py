"""Figures of a table of loads by value (of a condition, a modality), against values dealt anew to what documents did at one.

The null is that of `statistics.dealing`: it fits values that change within a document and those that do not. As documents do
not
weigh the same, p is of studentized differences (`statistics.studentized`): of a value's share of an expert from that of the
other values, counted among all experts and routers, and of information and divergence of the sum of their squares. In bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array, Pool
from ...statistics.dealing import studentized
from .answer import figures, information
from .arrays.document_counts import Table
from .dealt_labels import Dealt, Pooled

NULL = "values dealt anew to what documents did at one value, studentized"
DRAWS = 499
CELLS = 4_000_000  # of permuted tables in memory


@dataclass(frozen=True)
class ByValue:
    """Loads of one router, `table.counts` (units, values, experts); `noun` says what values are of, `kind` which."""

    table: Table
    noun: str
    kind: str

    @cached_property
    def draws(self) -> Array:
        """(draws, values, experts): documents drawn anew, within their value where each has one."""
        counts = self.table.counts
        one = bool((counts.any(axis=2).sum(axis=1) <= 1).all())
        return st.document_draws(counts, self.table.home if one else None)

    @cached_property
    def dealt(self) -> Dealt:
        """Values dealt anew."""
        return Dealt(*studentized(self.table.counts, int(np.clip(CELLS // self.table.counts[0].size, 199, DRAWS))))

    @property
    def null(self) -> Array:
        """(draws, values, experts): the loads of values dealt anew."""
        return self.dealt.null.counts

    @property
    def units(self) -> int:
        """Documents that have anything."""
        return int(self.table.counts.any(axis=(1, 2)).sum())

    def information(self) -> list[pd.DataFrame]:
        """Plug-in, and less its mean under the null."""
        drawn, null = (st.mutual_information(x) for x in (self.draws, self.null))
        null = null * self.dealt.fair
        common = {"null_name": NULL, "chance": 0.0, "n": round(self.table.total.sum()), "units": self.units}
        where = self.table.where | {"subset": self.kind}
        rows = information(where, bits(self.noun), self.table.total, drawn, null, **common)
        return [row.assign(p=float(self.dealt.p()[0]), p_from=self.dealt.p_from) for row in rows]

    def loads(self, pools: dict[str, Pool]) -> Pooled:
        """The share of every expert at every value, its null added to the value's pool; chance: its share at all of them."""
        total = self.table.total
        value, expert = (x.ravel() for x in np.indices(total.shape))
        subset = np.array([f"{self.kind}={name}" for name in self.table.labels], dtype=object)[value]
        units, n = self.table.counts.any(axis=2).sum(axis=0), total.sum(axis=1).round().astype(int)
        own = [pools.setdefault(name, Pool()) for name in self.table.labels]
        self.dealt.add_to(own)
        found = figures(
            self.table.where | {"expert": expert, "subset": subset}, share(self.noun), st.shares(total),
            source="share of the value's assignments", chance=st.shares(total.sum(0))[expert], draws=st.shares(self.draws),
            null=st.shares(self.null), null_name=NULL, bounds=(0, 1), n=n[value], units=units[value],
        )  # fmt: skip
        return Pooled(found, self.dealt.t, own)

    def divergences(self, pairs: Sequence[tuple[int, int]], estimator: str) -> list[pd.DataFrame]:
        """Jensen-Shannon divergence of the loads of pairs of values."""
        if not pairs:
            return []
        a, b = ([pair[i] for pair in pairs] for i in (0, 1))
        value, drawn, null = (st.jensen_shannon(x[..., a, :], x[..., b, :]) for x in (self.table.total, self.draws, self.null))
        names = [f"{self.kind}={self.table.labels[i]}, {self.table.labels[j]}" for i, j in pairs]
        there: Array = np.any(self.table.counts, axis=2)
        n = self.table.total.sum(axis=1)
        common: dict[str, Any] = {"n": (n[a] + n[b]).round().astype(int), "units": (there[:, a] | there[:, b]).sum(axis=0)}
        where = self.table.where | {"subset": np.array(names, dtype=object)}
        found = figures(where, "JSD (bits)", value, source="Lin 1991", chance=0.0, estimator=estimator, draws=drawn, null=null,
                        null_name=NULL, bounds=(0, 1), **common)  # fmt: skip
        return [found.assign(p=self.dealt.p(a, b), p_from=self.dealt.p_from)]


def bits(noun: str) -> str:
    """Name of the figure."""
    return f"I({noun}; expert) (bits)"


def share(noun: str) -> str:
    """Name of the figure."""
    return f"share of load by {noun}"


def corrected(frame: pd.DataFrame, noun: str) -> pd.DataFrame:
    """The information less its mean under the null."""
    return frame[(frame["name"] == bits(noun)) & (frame["estimator"] == "less null mean")]
