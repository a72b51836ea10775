"""Which run is meant, its routers, and its documents."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from ...errors import AnalysisError
from ...store import Store
from ...store.groups import GROUPS
from ...store.imported import lacks, source
from ...store.schema import quote

MAX_UNITS = 512  # more documents than this are dealt into as many groups, at random by hash: same interval, bounded memory
DOCUMENT = "coalesce(document, source || ' ' || source_row, 'sequence ' || sequence)"


@dataclass(frozen=True)
class Scope:
    """One run of a store."""

    store: Store
    run: int
    notes: list[str] = field(default_factory=list)

    @cached_property
    def routed(self) -> bool:
        """Whether the run's model has routers; False for recursive models that were traced for their states alone."""
        return bool(self.store.rows(f"select count(*) > 0 from routers where run = {self.run}")[0][0])

    @cached_property
    def routers(self) -> pd.DataFrame:
        """Rows of `routers`, by stack and layer, indexed by router; only those that decided something."""
        frame = self.store.sql(
            f"from routers where run = {self.run} and router in (select router from decision_rollup where decisions > 0) "
            "order by stack, layer, router"
        ).df()
        if not self.routed:
            raise AnalysisError(
                f"run {self.run} is of a model without routers, so nothing was routed; ask dimensionality, which has its states"
            )
        if frame.empty and self.store.rows(f"select capture->>'counts_only' = 'true' from runs where run = {self.run}") == [
            (True,)
        ]:
            raise AnalysisError(
                f"run {self.run} was imported as counts of experts, without decisions; ask its load in SQL (views expert_load, "
                "load_balance, label_load) or on the pages, or import a capture that has decisions"
            )
        if frame.empty:
            raise AnalysisError(
                f"run {self.run} holds no decisions; trace it again, or choose a run that was traced to its end"
            )
        return frame.set_index("router", drop=False)

    @cached_property
    def ranked(self) -> bool:
        """Whether the order of a decision's experts is that of their weights; captures of some engines do not tell."""
        unknown = f"select count(*) from routers where run = {self.run} and extra->>'ranks' = 'unknown'"
        return not self.store.rows(unknown)[0][0]

    def need_ranks(self, what: str) -> None:
        """AnalysisError unless first choices are known; `what`: what reads them."""
        if not self.ranked:
            raise AnalysisError(
                f"run {self.run} was imported without ranks (its engine's order of experts is not that of their weights), and "
                f"{what} reads first choices; capture with an engine that keeps the order, or trace the model"
            )

    def ranked_or_note(self, what: str, notes: list[str]) -> bool:
        """Whether first choices are known; else a note of what is left out."""
        if not self.ranked:
            notes.append(f"No {what}: run {self.run} was imported without ranks, so first choices are not known.")
        return self.ranked

    def without_ranks(self, frame: pd.DataFrame, of_ranks: Sequence[str], notes: list[str]) -> pd.DataFrame:
        """Figures less those whose name or estimator is one `of_ranks`, where ranks are not known; a note says so."""
        if self.ranked_or_note(", ".join(of_ranks), notes) or frame.empty:
            return frame
        return frame[~(frame["name"].isin(of_ranks) | frame["estimator"].isin(of_ranks))].reset_index(drop=True)

    @cached_property
    def documents(self) -> int:
        """Number of documents (or images)."""
        return self.store.rows(f"select count(distinct {DOCUMENT}) from sequences where run = {self.run}")[0][0]

    def kinds(self, level: str = "sequence") -> dict[str, int]:
        """Kinds of labels of this run's sequences or tokens, and how many labels each has."""
        rows = self.store.rows(
            f"select kind, count(distinct label) from {level}_labels join {level}s using ({level}) "
            f"where run = {self.run} group by kind order by kind"
        )
        return dict(rows)

    def kind(self, wanted: str | None, level: str = "sequence", prefer: tuple[str, ...] = ("domain", "class")) -> str:
        """A kind with at least two labels: `wanted`, or the first of `prefer`, or any. AnalysisError if there is none."""
        kinds = self.kinds(level)
        useful = [k for k, labels in kinds.items() if labels > 1]
        have = ", ".join(f"{k} ({n})" for k, n in kinds.items()) or "none"
        if wanted and wanted not in kinds:
            raise AnalysisError(
                f"no {level} of run {self.run} has a label {wanted!r}; labels there, with how many values: {have}; "
                "trace data with that label"
            )
        if wanted and wanted not in useful:
            raise AnalysisError(f"run {self.run} has one {wanted} only, so nothing can be compared; trace inputs of another")
        if not useful:
            raise AnalysisError(
                f"run {self.run} has no {level} label with two or more values (labels there: {have}); trace data with labels, "
                "such as a domain per document"
            )
        return wanted or next((k for k in prefer if k in useful), useful[0])

    def kind_or_note(self, by: str | None, notes: list[str], without: str) -> str | None:
        """As `kind`; where nobody asked for one and there is none, None and a note of what is left out."""
        try:
            return self.kind(by)
        except AnalysisError as reason:
            if by:
                raise
            notes.append(f"{without}: {reason}.")
            return None

    def units_sql(self, kind: str | None = None) -> str:
        """SQL with one row per sequence: sequence, unit (documents from 0), label (of the sequence label `kind`, or '').

        Documents never share a unit with those of another label; a document with two labels is two units.
        """
        label = "''" if kind is None else "l.label"
        source = f"sequences s where run = {self.run}"
        if kind is not None:
            labels = f"sequence_labels l on l.sequence = s.sequence and l.kind = {quote(kind)}"
            source = f"sequences s join {labels} where run = {self.run}"
        document = DOCUMENT.replace("|| sequence", "|| s.sequence")
        if self.documents > MAX_UNITS:
            groups = max(16, MAX_UNITS // (self.kinds()[kind] if kind else 1))
            document = f"hash({document}) % {groups}"
        unit = f"(dense_rank() over (order by {label}, {document}) - 1)::int"
        return f"select s.sequence, {label} as label, {unit} as unit from {source}"


def place(router: pd.Series) -> dict[str, Any]:
    """Stack, layer and router of a row of `routers`, as keys of figure rows."""
    return {key: router[key] for key in ("stack", "layer", "router")}


def groups(store: Store, run: int) -> dict[int, str]:
    """{router: stack and site} of the stacks in which a layer has two routers (attention and ffn), which else share a layer."""
    return dict(store.rows(GROUPS, [run]))


def scope(store: Store, run: int | None = None) -> Scope:
    """The run asked for, or the newest complete one (or the newest of all, where none is). AnalysisError if there is none."""
    rows = store.rows("select run, name, status, capture from runs order by started desc nulls last, run desc")
    if not rows:
        raise AnalysisError(f"{store.path} holds no run; make one with: moescope trace MODEL --data DATA --store {store.path}")
    known = {number: (name, status, capture) for number, name, status, capture in rows}
    if run is not None and run not in known:
        raise AnalysisError(
            f"{store.path} has no run {run}; it has: {', '.join(f'{n} ({v[0]})' for n, v in sorted(known.items()))}"
        )
    chosen = run if run is not None else next((n for n, _, status, _ in rows if status == "complete"), rows[0][0])
    notes = []
    if run is None and len(rows) > 1:
        notes.append(f"{len(rows)} runs are in the store; this is run {chosen} ({known[chosen][0]}), the newest complete one.")
    if known[chosen][1] != "complete":
        notes.append(f"Run {chosen} is {known[chosen][1]}: the figures hold for what it recorded so far.")
    if without := lacks(known[chosen][2]):
        notes.append(f"Run {chosen} was imported from {source(known[chosen][2])}; not in its capture: {'; '.join(without)}.")
    return Scope(store, chosen, notes)
