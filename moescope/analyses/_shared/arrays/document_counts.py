"""Counts by document as one array per router."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ....statistics import Array
from ..scope import Scope, place


@dataclass(frozen=True)
class Table:
    """Counts of one router: `counts` (units, labels, experts); `labels` name its middle axis."""

    router: pd.Series
    labels: list[str]
    counts: Array

    @property
    def where(self) -> dict[str, Any]:
        """Stack, layer and router, as keys of figure rows."""
        return place(self.router)

    @property
    def total(self) -> Array:
        """(labels, experts): over all documents."""
        return self.counts.sum(axis=0)

    @cached_property
    def home(self) -> Array:
        """(units,): the label each document belongs to; for tables counted by `Scope.units_sql(kind)`."""
        return self.counts.sum(axis=2).argmax(axis=1)

    @property
    def chosen(self) -> float:
        """k, where it is fixed, else NaN."""
        return float(self.router["top_k"]) if pd.notna(self.router["top_k"]) else np.nan


def tables(scope: Scope, sql: str, value: str = "n") -> Iterator[Table]:
    """Run `sql` for rows (unit, router, expert, [label], `value`) and give one Table per router, by stack and layer.

    Expert numbers that are no routed experts (identity, skip) are left out.
    """
    frame = scope.store.sql(_counted_once(scope, sql)).df()
    if "label" not in frame:
        frame["label"] = ""
    code, labels = pd.factorize(frame["label"].to_numpy(), sort=True)
    frame["label"] = code
    units = int(frame["unit"].max()) + 1 if len(frame) else 0
    groups = dict(list(frame.groupby("router")))
    for router, row in scope.routers.iterrows():
        part = groups.get(router, frame.iloc[:0])
        part = part[part["expert"] < row["experts"]]
        counts = np.zeros((units, len(labels), int(row["experts"])))
        counts[part["unit"], part["label"], part["expert"]] = part[value]
        yield Table(row, [str(label) for label in labels], counts)


def load_sql(scope: Scope, kind: str | None = None) -> str:
    """Assignments that ran by document, router, label and expert; of them `first` choices, and the sum of weights."""
    return f"""with units as ({scope.units_sql(kind)}),
by_sequence as ({_by_sequence(scope)})
select unit, router, label, expert, sum(n)::bigint as n, sum(first)::bigint as first, sum(weight) as weight
from by_sequence join units using (sequence) group by all"""


def _by_sequence(scope: Scope) -> str:
    return f"""
  select router, sequence, expert, count(*) as n, count(*) filter (rank = 0) as first, sum(weight) as weight
  from assignments join (select token, sequence from tokens where run = {scope.run}) using (token)
  where run = {scope.run} and not dropped group by all"""


def _counted_once(scope: Scope, sql: str) -> str:
    """The query, with what every question counts first taken from a temporary table of this connection."""
    counts = _by_sequence(scope)
    if counts not in sql:
        return sql
    name = f"by_sequence_of_run_{scope.run}"
    scope.store.con.execute(f"create temp table if not exists {name} as {counts}")
    return sql.replace(counts, f"from {name}")
