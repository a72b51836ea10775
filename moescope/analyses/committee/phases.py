"""Prompt against continuation: does what a document routes to while it is read tell what it routes to while it is written?

After arXiv 2604.09780: a sequence's usage is the vector of how often each expert ran; two usages are compared by cosine, and by
the Jaccard index of the fewest experts that hold `top_p` of the visits. Here per document, prompt against generated tokens.
Null: continuations dealt to other documents. Where prompts tell nothing of their own continuation, any other one fits as well.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.document_counts import Table, tables
from .._shared.scope import Scope
from .audit import by_chance, jaccard, leaders

SOURCE = "2604.09780"
NULL = "continuations dealt to other documents"
DEALS = 499


def phases_sql(scope: Scope) -> str:
    """Assignments that ran by document, router, expert and phase (prompt or continuation)."""
    return f"""with units as ({scope.units_sql()})
select unit, router, expert, if(generated, 'continuation', 'prompt') as label, count(*) as n
from assignments join (select token, sequence, coalesce(generated, false) as generated from tokens where run = {scope.run})
using (token) join units using (sequence) where run = {scope.run} and not dropped group by all"""


def by_phase(scope: Scope, top_p: float, notes: list[str]) -> tuple[list[pd.DataFrame], str]:
    """Figures per router, and their query; none, with a note, where the run generated nothing."""
    sql = phases_sql(scope)
    generated = f"select count(*) > 0 from tokens where run = {scope.run} and generated"
    if not scope.store.rows(generated)[0][0]:
        notes.append("Nothing of prompts against continuations: the run generated nothing; trace with --generate to ask it.")
        return [], sql
    rows = [row for table in tables(scope, sql) for row in _of(table, top_p)]
    return rows, sql


def _of(table: Table, top_p: float) -> list[pd.DataFrame]:
    at = {label: number for number, label in enumerate(table.labels)}
    if len(at) < 2:
        return []
    prompt, written = table.counts[:, at["prompt"]], table.counts[:, at["continuation"]]
    both = (prompt.sum(1) > 0) & (written.sum(1) > 0)
    prompt, written = prompt[both], written[both]
    if len(prompt) < 2:
        return []
    sets = leaders(prompt, top_p), leaders(written, top_p)
    pairs = {
        f"Jaccard at {top_p:.0%} of visits": jaccard(sets[0][:, None], sets[1][None]),
        "cosine of visits": _cosine(prompt, written),
    }
    sizes = np.array([s.sum(1).mean() for s in sets])
    chance = {"Jaccard": by_chance(sizes, prompt.shape[1])}
    n = int(prompt.sum() + written.sum())
    return [_figure(table, estimator, found, chance.get(estimator.split()[0], np.nan), n) for estimator, found in pairs.items()]


def _cosine(a: Array, b: Array) -> Array:
    """(documents, documents)."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (a, b))
    return np.asarray(a @ b.T)


def _figure(table: Table, estimator: str, found: Array, chance: float, n: int) -> pd.DataFrame:
    """`found` (documents, documents): prompt of one, continuation of another."""
    documents, rng = len(found), np.random.default_rng(0)
    own = np.diag(found)
    null = np.array([found[np.arange(documents), rng.permutation(documents)].mean() for _ in range(DEALS)])
    common: dict[str, Any] = {"source": SOURCE, "bounds": (0, 1), "n": n, "units": documents}
    draws = st.bootstrap_weights(documents) @ own / documents
    return figures(table.where, "prompt and continuation", own.mean(), estimator=estimator, chance=chance, draws=draws,
                   null=null, null_name=NULL, **common)  # fmt: skip
