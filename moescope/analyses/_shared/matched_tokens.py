"""The same tokens in two runs: those that stand in the same place of the same input."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...errors import AnalysisError
from ...statistics import Array
from ...store import Store
from .decision_sample import Sample, sample
from .scope import Scope, scope

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


def twins(store: Store, run: int | None, other: int | None, partner: Callable[[Scope], int], most: int) -> Twins:
    """This run (newest) beside `other`, or the one that `partner` finds; of `most` assignments each. AnalysisError if alone."""
    here = scope(store, run)
    there = scope(store, other if other is not None else partner(here))
    notes = [*here.notes, f"Run {here.run} against run {there.run}."]
    if there.run == here.run:
        raise AnalysisError(f"run {here.run} cannot be compared with itself; give another run of the same inputs")
    mine, others = (sample(s, notes, most, order="(source, source_row, part)") for s in (here, there))
    return Twins(here, there, mine, others, *aligned(here, there, mine, others, notes), notes)


def aligned(here: Scope, there: Scope, mine: Sample, others: Sample, notes: list[str]) -> tuple[Array, Array]:
    """Rows of both samples that are the same token; a note says how many have no partner."""
    a, b = (_keys(*pair) for pair in ((here, mine), (there, others)))
    both = a.merge(b, on=SAME, suffixes=("", "_other"))
    if both.empty:
        raise AnalysisError(
            f"runs {here.run} and {there.run} share no token (same source, row, part and position); trace the same data twice"
        )
    if len(both) < len(a) or len(both) < len(b):
        notes.append(
            f"{len(both)} tokens are in both runs; {len(a) - len(both)} are in run {here.run} only, {len(b) - len(both)} in "
            f"run {there.run} only."
        )
    differ = (both["vocab_id"].notna() & (both["vocab_id"] != both["vocab_id_other"])).sum()
    if differ > len(both) / 2:
        raise AnalysisError(
            f"runs {here.run} and {there.run} did not read the same tokens: {differ} of the {len(both)} in the same place have "
            "another vocabulary id; compare runs with one tokenizer and one preparation of the inputs"
        )
    if differ:
        notes.append(f"{differ} of them have another vocabulary id in the other run: the inputs or tokenizers differ there.")
    return both["row"].to_numpy(), both["row_other"].to_numpy()


def _keys(which: Scope, taken: Sample) -> pd.DataFrame:
    names = which.store.sql(
        f"select sequence, source, source_row, part, beam, stack from sequences where run = {which.run}"
    ).df()
    frame = taken.tokens[["sequence", "position", "vocab_id"]].assign(row=np.arange(len(taken.tokens)))
    return frame.merge(names, on="sequence")
