"""Which run is meant, its routers, and its documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from ...errors import AnalysisError
from ...store import Store, documents
from ...store.groups import GROUPS
from ...store.imported import lacks, source

MANY = 5  # other runs that are named


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
        return self.store.rows(f"select count(distinct {documents.DOCUMENT}) from sequences where run = {self.run}")[0][0]

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

    def units_sql(self, kind: str | None = None, groups: int | None = None) -> str:
        """SQL with one row per sequence: sequence, unit (documents from 0), label (of the sequence label `kind`, or '').

        Documents never share a unit with those of another label; a document with two labels is two units. `groups`: deal the
        documents by hash into so many units, where they are more. That is for intervals alone, which stay as they are; whatever
        permutes documents, or tokens within them, takes the documents themselves.
        """
        return documents.units_sql(self.run, kind, groups if groups is not None and self.documents > groups else None)


def place(router: pd.Series) -> dict[str, Any]:
    """Stack, layer and router of a row of `routers`, as keys of figure rows."""
    return {key: router[key] for key in ("stack", "layer", "router")}


def groups(store: Store, run: int) -> dict[int, str]:
    """{router: stack and site} of the stacks in which a layer has two routers (attention and ffn), which else share a layer."""
    return dict(store.rows(GROUPS, [run]))


def scope(store: Store, run: int | None = None) -> Scope:
    """The run asked for, or the newest complete one (or the newest of all, where none is). AnalysisError if there is none."""
    known = candidates(store)
    if run is not None and run not in known:
        raise AnalysisError(
            f"{store.path} has no run {run}; it has: {', '.join(f'{n} ({v[0]})' for n, v in sorted(known.items()))}"
        )
    taken = run if run is not None else next(iter(known))
    status = known[taken][1]
    notes = [] if status == "complete" else [f"Run {taken} is {status}: the figures hold for what it recorded so far."]
    capture = store.rows("select capture from runs where run = ?", [taken])[0][0]
    if without := lacks(capture):
        notes.append(f"Run {taken} was imported from {source(capture)}: {'; '.join(without)}.")
    return Scope(store, taken, notes)


def candidates(store: Store) -> dict[int, tuple[str, str]]:
    """{run: name, status}, the complete ones first, and of them the newest. AnalysisError if there is none."""
    rows = store.rows(
        "select run, name, status from runs order by (status = 'complete') desc, started desc nulls last, run desc"
    )
    if not rows:
        raise AnalysisError(f"{store.path} holds no run; make one with: moescope trace MODEL --data DATA --store {store.path}")
    return {number: (name, status) for number, name, status in rows}


def chosen(runs: dict[int, tuple[str, str]], taken: int, refused: Mapping[int, AnalysisError]) -> str:
    """Which of several runs was taken, which others there are, and why those that were asked before it could not answer."""
    if len(runs) == 1:
        return ""
    others = [f"run {n} ({name})" for n, (name, _) in runs.items() if n != taken and n not in refused]
    said = f"{len(runs)} runs are in the store; this is run {taken} ({runs[taken][0]}), the newest that can answer."
    said += f" There {'is' if len(others) == 1 else 'are'} also {', '.join(others[:MANY])}" if others else ""
    said += f" and {len(others) - MANY} more." if len(others) > MANY else "." if others else ""
    for n, why in list(refused.items())[:MANY]:
        said += f" Run {n} ({runs[n][0]}) cannot: {str(why).partition(';')[0]}."
    return said
