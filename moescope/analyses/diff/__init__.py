"""Router diff: two runs of the same inputs: which decisions changed, where, how near the edge, and for which tokens?

Tokens are the same when source, row, part, beam, stack and position agree, or (an engine's capture) when all ids of the
sequence up to them do; routers when stack, block type and layer do. What is measured per router: see `changes.py`. The frame
`tokens` says which ids change more often than the documents they stand in (binomial tail, FDR), `decisions` which decisions
changed, those that were surest first.
"""

from contextlib import ExitStack

import numpy as np
import pandas as pd

from ...errors import AnalysisError
from ...statistics import Array
from ...store import Store, open_store
from ...words import RunNumber
from .._shared.answer import Answer, Chart, few_units, gather, queries
from .._shared.arrays.contexts import words
from .._shared.arrays.decision_sample import MOST, Sample
from .._shared.arrays.matched_tokens import Twins, read_alike, twins
from .._shared.chart_forms import bars, layers
from .._shared.scope import Scope, scope
from .._shared.verdicts import saying
from .._shared.verdicts.verdict import Verdict, analyze, verdict
from .changes import Pair

KEPT = 2000  # changed decisions


def run(store: Store, run: int | None = None, other: RunNumber | None = None, beside: str | None = None) -> Answer:
    """This run (newest) against `other` (default: the newest earlier run of its family that shares inputs); `beside`: the store
    that has the other run, if it is another one."""
    with ExitStack() as stack:
        second = stack.enter_context(open_store(beside)) if beside is not None else None
        return _compared(twins(store, run, other, _partner, MOST // 2, second))


def _compared(both: Twins) -> Answer:
    here, there, mine, others, rows_here, rows_there, notes = both
    rows, tokens, decisions = [], [], []
    margins, theirs = _margins(here, mine), _margins(there, others)
    ranked = here.ranked and there.ranked
    if not ranked:
        notes.append(
            "Only sets are compared: one of the runs was imported without ranks, so orders and first choices are not known."
        )
    for router, partner in _paired(here, there):
        pair = Pair(mine, router, mine.chosen[router][rows_here], others.chosen[partner][rows_there], rows_here, ranked)
        margin = margins[router]
        if np.isnan(margin).all():  # of the other run, where this one has none: an engine's capture beside a trace
            margin = np.full(len(margin), np.nan)
            margin[rows_here] = theirs[partner][rows_there]
        rows += pair.figures(margin)
        tokens.append(pair.tokens())
        decisions.append(pair.decisions(margin))
    if not rows:
        raise AnalysisError(f"runs {here.run} and {there.run} have no router in common (same stack, block type and layer)")
    changed = pd.concat(tokens, ignore_index=True)
    frame = gather(rows, changed)
    frames = {"figures": frame, "tokens": _words(here, changed), "decisions": _where(here, decisions)}
    sql = {"figures": mine.sql, "tokens": mine.sql, "decisions": mine.sql, "figures, other run": others.sql}
    said = _verdict(frame, here.run, there.run)
    return Answer("diff", "Router diff", said, here.run, frames, sql, notes + few_units(frame), charts)


def beside(store: Store, run: int, other: int | None = None, beside: str | None = None) -> list[int]:
    """The run that is compared with, where it is in this store."""
    if beside is not None:
        return []
    return [other if other is not None else _partner(scope(store, run))]


def _partner(here: Scope) -> int:
    rows = here.store.rows(
        f"""select b.run from sequences a join sequences b using (source, source_row, part, beam, stack)
join runs r on r.run = b.run join models m using (model) where a.run = {here.run} and b.run <> a.run
and m.family is not distinct from (select family from runs join models using (model) where run = {here.run})
group by b.run, r.started order by b.run < {here.run} desc, r.started desc, b.run desc"""
    )
    if not rows and (alike := read_alike(here, family=True)):
        return alike[0]
    if not rows:
        raise AnalysisError(
            f"no other run of {here.store.path} read the inputs of run {here.run} (same source, row and part) with a model of "
            "its family; trace the same data with the other model into this store, or name the run with `other`"
        )
    return int(rows[0][0])


def _paired(here: Scope, there: Scope) -> list[tuple[int, int]]:
    key = ["stack", "block_type", "layer"]
    frames = [s.routers.reset_index(drop=True).assign(nth=s.routers.groupby(key).cumcount().to_numpy()) for s in (here, there)]
    both = frames[0].merge(frames[1], on=[*key, "nth"], suffixes=("", "_other"))
    return list(zip(both["router"], both["router_other"]))


def _margins(here: Scope, mine: Sample) -> dict[int, Array]:
    """Margin of every token of the sample by router, NaN where there is none."""
    tokens = mine.tokens["token"].to_numpy()
    order = np.argsort(tokens)
    frame = here.store.sql(
        f"select router, token, margin from decisions where run = {here.run} and iteration = 0 and margin is not null "
        f"and token between {tokens.min()} and {tokens.max()}"
    ).df()
    margins = {router: np.full(len(tokens), np.nan) for router in here.routers.index}
    for router, part in frame.groupby("router"):
        place = np.minimum(np.searchsorted(tokens, part["token"], sorter=order), len(order) - 1)
        known = tokens[order[place]] == part["token"].to_numpy()
        if router in margins:
            margins[router][order[place[known]]] = part["margin"].to_numpy()[known]
    return margins


def _words(here: Scope, tokens: pd.DataFrame) -> pd.DataFrame:
    frame = tokens.merge(words(here), on="vocab_id", how="left").sort_values(["p", "n"], ascending=[True, False])
    return (
        frame[["stack", "layer", "router", "vocab_id", "text", "value", "chance", "n", "p", "q"]]
        .head(2000)
        .reset_index(drop=True)
    )


def _where(here: Scope, decisions: list[pd.DataFrame]) -> pd.DataFrame:
    """The changed decisions that were surest, with the text of their tokens."""
    frame = pd.concat(decisions, ignore_index=True).sort_values("margin", ascending=False, na_position="last", kind="stable")
    return frame.head(KEPT).merge(words(here), on="vocab_id", how="left").reset_index(drop=True)


def _verdict(frame: pd.DataFrame, run: int, other: int) -> Verdict:
    sets, order = (frame[(frame["name"] == name) & (frame["subset"] == "")] for name in ("set changed", "order changed"))
    sets = sets.sort_values("value", ascending=False, kind="stable")
    top, limits = sets.iloc[0], "it does not show whether an output changed with them"
    ask = analyze("grouping", other=other)
    if not (sets["value"].any() or order["value"].any()):
        follows = f"Runs {run} and {other} decided alike in every one of {int(sets['n'].sum())} decisions, "
        follows += f"{saying.amount(top, '%')} in another set"
        return verdict(follows, top, frame, limits, sets, ask)
    turned = f" and the same set in another order in {saying.number(100 * order['value'].mean())} %" if len(order) else ""
    follows = (
        f"Between runs {run} and {other} another set of experts was chosen in {saying.number(100 * sets['value'].mean())} % of "
        f"decisions{turned}, most in {saying.layer(top, frame)} with {saying.amount(top, '%')} in another set"
    )
    return verdict(follows, top, frame, limits, sets, ask)


def charts(answer: Answer) -> dict[str, Chart]:
    """Changes by layer and by margin."""
    both = answer.frames["figures"][lambda f: f["name"].isin(["set changed", "order changed", "first choice changed"])]
    sql = queries(answer.sql["figures"], answer.sql["figures, other run"])
    by_margin = answer.figures("set changed by margin").assign(fifth=lambda f: f["subset"].str[:14])
    made = {
        "changed decisions": layers(both, "Share of decisions changed", sql, colour="name"),
        "router saturation": layers(answer.figures("router saturation"), "Router saturation (overlap of the chosen)", sql),
    }
    if len(by_margin):
        made["by margin"] = bars(by_margin, "Set changed, by fifth of margin (1 = nearest the edge)", sql, "fifth", "layer")
    return made
