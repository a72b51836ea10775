"""Figures of a table of loads by value (of a condition, a modality), against values dealt anew to what documents did at one.

The null is `statistics.dealt`: it fits values that change within a document and those that do not. Information in bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .answer import figures
from .document_counts import Table

NULL = "values dealt anew to what documents did at one value"
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
    def null(self) -> Array:
        """(draws, values, experts): values dealt anew."""
        return st.dealt(self.table.counts, int(np.clip(CELLS // self.table.counts[0].size, 199, DRAWS)))

    @property
    def units(self) -> int:
        """Documents that have anything."""
        return int(self.table.counts.any(axis=(1, 2)).sum())

    def information(self) -> list[pd.DataFrame]:
        """Plug-in, and less its mean under the null."""
        value, drawn, null = (st.mutual_information(x) for x in (self.table.total, self.draws, self.null))
        common: dict[str, Any] = {"source": "Shannon 1948", "draws": drawn, "null_name": NULL, "chance": 0.0,
                                  "bounds": (0, np.inf), "n": round(self.table.total.sum()), "units": self.units}  # fmt: skip
        where, name, bias = self.table.where | {"subset": self.kind}, bits(self.noun), null.mean()
        return [
            figures(where, name, value, estimator="plug-in", null=null, **common),
            figures(where, name, value - bias, estimator="less null mean", null=null - bias, **common),
        ]

    def loads(self) -> pd.DataFrame:
        """The share of every expert at every value; chance: its share at all of them."""
        total = self.table.total
        value, expert = (x.ravel() for x in np.indices(total.shape))
        subset = np.array([f"{self.kind}={name}" for name in self.table.labels], dtype=object)[value]
        units, n = self.table.counts.any(axis=2).sum(axis=0), total.sum(axis=1).round().astype(int)
        return figures(
            self.table.where | {"expert": expert, "subset": subset}, share(self.noun), st.shares(total),
            source="share of the value's assignments", chance=st.shares(total.sum(0))[expert], draws=st.shares(self.draws),
            null=st.shares(self.null), null_name=NULL, side="both", tail="t", bounds=(0, 1), n=n[value], units=units[value],
        )  # fmt: skip

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
        return [
            figures(where, "JSD (bits)", value, source="Lin 1991", chance=0.0, estimator=estimator, draws=drawn, null=null,
                    null_name=NULL, tail="t", bounds=(0, 1), **common)
        ]  # fmt: skip


def bits(noun: str) -> str:
    """Name of the figure."""
    return f"I({noun}; expert) (bits)"


def share(noun: str) -> str:
    """Name of the figure."""
    return f"share of load by {noun}"


def corrected(frame: pd.DataFrame, noun: str) -> pd.DataFrame:
    """The information less its mean under the null."""
    return frame[(frame["name"] == bits(noun)) & (frame["estimator"] == "less null mean")]
