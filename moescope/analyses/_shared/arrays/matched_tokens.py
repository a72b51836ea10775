"""The same tokens in two runs: those that stand in the same place of the same input, or behind the same ids.

Runs of one data set name their inputs alike (source, row, part). What an engine captured has other names; there tokens are the
same where all ids from the beginning of the sequence up to them are, which is all that a causal model has read.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ....errors import AnalysisError
from ....statistics import Array
from ....store import Store
from ..scope import Scope, scope
from .decision_sample import Sample, sample

_FIRST = 16  # ids by which sequences are told apart before all are compared
_BY_IDS = f"(select list(z.vocab_id order by z.position) from tokens z where z.sequence = s.sequence and z.position < {_FIRST})"
SAME = ["source", "source_row", "part", "beam", "stack", "position"]


class Twins(NamedTuple):
    """Two runs, a sample of each, the rows of both samples that are the same tokens, and what is to be said of it."""

    here: Scope
    there: Scope
    mine: Sample
    others: Sample
    rows_here: Array
    rows_there: Array
    notes: list[str]


def twins(
    store: Store, run: int | None, other: int | None, partner: Callable[[Scope], int], most: int, beside: Store | None = None
) -> Twins:
    """This run (newest) beside `other` (of the store `beside`, if there is one: its newest), or the one that `partner` finds;
    of `most` assignments each. AnalysisError if alone."""
    here = scope(store, run)
    there = scope(beside or store, other if other is not None or beside is not None else partner(here))
    notes = [*here.notes, *(there.notes if there.notes != here.notes else []), f"Run {here.run} against run {there.run}."]
    if beside is not None:
        notes[-1] = f"Run {here.run} of {store.path} against run {there.run} of {beside.path}."
    if there.run == here.run and beside is None:
        raise AnalysisError(f"run {here.run} cannot be compared with itself; give another run of the same inputs")
    mine, others = (sample(s, notes, most, order=_named_alike(here, there)) for s in (here, there))
    return Twins(here, there, mine, others, *aligned(here, there, mine, others, notes), notes)


def aligned(here: Scope, there: Scope, mine: Sample, others: Sample, notes: list[str]) -> tuple[Array, Array]:
    """Rows of both samples that are the same token; a note says how many have no partner."""
    a, b = (_keys(*pair) for pair in ((here, mine), (there, others)))
    both = a.merge(b, on=SAME, suffixes=("", "_other"))
    if both.empty or _differ(both) > len(both) / 2:
        by_ids = _by_ids(a, b)
        if len(by_ids) > len(both) / 2:
            both = by_ids
            notes.append("Tokens were matched by their ids: those are the same before which all ids of their sequence are.")
    if both.empty:
        raise AnalysisError(
            f"runs {here.run} and {there.run} share no token (same source, row, part and position, or the same ids from the "
            "beginning of a sequence); trace the same data twice, or the texts that the engine was given, with the same "
            "tokenizer "
            "and the same first tokens"
        )
    if len(both) < len(a) or len(both) < len(b):
        notes.append(
            f"{len(both)} tokens are in both runs; {len(a) - len(both)} are in run {here.run} only, {len(b) - len(both)} in "
            f"run {there.run} only."
        )
    differ = _differ(both)
    if differ > len(both) / 2:
        raise AnalysisError(
            f"runs {here.run} and {there.run} did not read the same tokens: {differ} of the {len(both)} in the same place have "
            "another vocabulary id; compare runs with one tokenizer and one preparation of the inputs"
        )
    if differ:
        notes.append(f"{differ} of them have another vocabulary id in the other run: the inputs or tokenizers differ there.")
    return both["row"].to_numpy(), both["row_other"].to_numpy()


def _differ(both: pd.DataFrame) -> int:
    return int((both["vocab_id"].notna() & (both["vocab_id"] != both["vocab_id_other"])).sum())


def _named_alike(here: Scope, there: Scope) -> str:
    """SQL by which both runs deal their sequences: by their names, or where none is alike by their first ids."""
    names = [set(s.store.rows(f"select distinct source from sequences where run = {s.run}")) for s in (here, there)]
    return "(source, source_row, part)" if names[0] & names[1] else _BY_IDS


def read_alike(here: Scope, family: bool) -> list[int]:
    """Other runs in which some sequence begins with the same ids, most such sequences first; `family`: of this run's alone."""
    alike = (
        "and m.family is not distinct from (select family from runs join models using (model) where run = {0})"
        if family
        else ""
    )
    rows = here.store.rows(
        f"""with s as (select run, sequence from sequences), f as (select run, {_BY_IDS} as ids from s)
select b.run from f a join f b on a.ids = b.ids join runs r on r.run = b.run join models m using (model)
where a.run = {here.run} and b.run <> a.run and a.ids is not null {alike.format(here.run)}
group by b.run order by count(*) desc, b.run desc"""
    )
    return [int(run) for (run,) in rows]


def _by_ids(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Rows of both frames before which all ids of their sequence are the same; each row once."""
    mine, other = (_told(frame) for frame in (a, b))
    return mine.merge(other, on=["told", "nth"], suffixes=("", "_other"))


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with what tells them: a hash of all ids up to theirs, and which of several with the same it is."""
    frame = frame.sort_values(["sequence", "position"], kind="stable", ignore_index=True)
    known, ids = frame["vocab_id"].notna().to_numpy(), frame["vocab_id"].fillna(0).to_numpy(np.uint64)
    mixed = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ (frame["position"].to_numpy(np.uint64) + np.uint64(1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    sequence = frame["sequence"].to_numpy()
    begin = np.flatnonzero(np.r_[True, sequence[1:] != sequence[:-1]]) if len(frame) else np.empty(0, int)
    size = np.diff(np.r_[begin, len(frame)])
    total, gone = np.cumsum(mixed, dtype=np.uint64), np.cumsum(~known)
    before = [np.repeat(np.r_[sums.dtype.type(0), sums][begin], size) for sums in (total, gone)]
    place = np.arange(len(frame)) - np.repeat(begin, size)
    whole = (gone == before[1]) & (frame["position"].to_numpy() == place)
    told = frame.assign(told=total - before[0])[whole]
    return told.assign(nth=told.groupby("told").cumcount())


def _keys(which: Scope, taken: Sample) -> pd.DataFrame:
    names = which.store.sql(
        f"select sequence, source, source_row, part, beam, stack from sequences where run = {which.run}"
    ).df()
    frame = taken.tokens[["sequence", "position", "vocab_id"]].assign(row=np.arange(len(taken.tokens)))
    return frame.merge(names, on="sequence")
