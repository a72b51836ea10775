"""What the store knows about one expert: its tokens, contexts, labels and neighbours."""

import re
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from moescope.app.queries import sampling, store_access
from moescope.app.queries.layers import Layer
from moescope.show import expert_cards, expert_labels
from moescope.show.expert_labels import KINDS

Row = dict[str, Any]
__all__ = ["KINDS"]

LOAD = """
select expert, share, assignments, first, dropped, weight / nullif(assignments, 0) as mean_weight
from expert_load where router = ? order by expert"""
RANKED = """,
x as (select *, here / seen as rate, 1.96 as z from n)
select coalesce(v.text, '#' || x.vocab_id) as text, x.here as tokens, x.seen as occurrences, x.rate,
       (rate + z * z / (2 * seen) - z * sqrt(greatest(rate * (1 - rate), 0) / seen + z * z / (4 * seen * seen)))
         / (1 + z * z / seen) as low
from x join runs u on u.run = ? left join vocab v on v.model = u.model and v.vocab_id = x.vocab_id
order by low desc, x.vocab_id limit 40"""
KEPT = """
with n as (
  select vocab_id, sum(assignments) filter (expert = ?) as here, sum(assignments) / ? as seen from vocab_rollup
  where run = ? and router = ? group by vocab_id having here > 0)"""
COUNTED = """
with seen as (
  select t.vocab_id, count(*) as seen from decisions a join tokens t using (token) where a.router = ?{few} group by all),
n as (
  select t.vocab_id, count(*) as here, any_value(seen.seen) as seen
  from assignments a join tokens t using (token) join seen on seen.vocab_id is not distinct from t.vocab_id
  where a.router = ? and a.expert = ? and not a.dropped{few} group by all)"""
CONTEXTS = """
with mine as materialized (
  select token, weight from assignments a where router = ? and expert = ? and coalesce(rank, 0) = 0 and not dropped{only}{few}
  order by {order} token limit {most}),
best as materialized (select m.token, m.weight, t.sequence, t.position from mine m join tokens t using (token)),
near as (
  select * from tokens where sequence in (select sequence from best)
  and sequence between (select min(sequence) from best) and (select max(sequence) from best))
select b.token, b.weight, b.sequence, b.position, s.document, t.position::bigint - b.position as distance,
       coalesce(v.text, '#' || t.vocab_id, case when t.unit = 'text' then '?' end) as text
from best b join near t on t.sequence = b.sequence and abs(t.position::bigint - b.position) <= {around}
join sequences s on s.sequence = b.sequence join runs u on u.run = t.run
left join vocab v on v.model = u.model and v.vocab_id = t.vocab_id order by {outer} b.token, t.position"""
ONLY = """ and token in (
    select t.token from tokens t join runs u using (run) join vocab v on v.model = u.model and v.vocab_id = t.vocab_id
    where v.text = ?)"""
ONLY_ID = """ and token in (select token from tokens where vocab_id = cast(substr(?, 2) as integer))"""
NAMED = "select 1 from vocab where model = ? and text = ? limit 1"
PLACES, AROUND = 12, 24  # contexts that are shown, and tokens to either side
ORDERS = {"most": ("weight desc,", "b.weight desc,"), "random": ("hash(token),", "")}
BARS = 24  # labels that are drawn


def part_of(run: Row, layer: Layer) -> tuple[str, float]:
    """The condition and the share of what is counted of a layer: see `sampling.filter_sql`."""
    return sampling.filter_sql(run, sampling.LAYER, layer.top_k or 1)


def exact(layer: Layer) -> bool:
    """True where the kept sums by vocabulary id say all."""
    return expert_cards.exact(store_access.frame, layer)


def top_tokens(run: Row, layer: Layer, expert: int, overall: float) -> tuple[pd.DataFrame, str, list[Any]]:
    """Tokens by how much more often they go to this expert than tokens do; the bound is Wilson's 95 %."""
    if exact(layer):
        sql, params = KEPT + RANKED, [expert, layer.top_k, run["run"], layer.router, run["run"]]
    else:
        sql, params = COUNTED.format(few=part_of(run, layer)[0]) + RANKED, [layer.router, layer.router, expert, run["run"]]
    frame = store_access.frame(sql, *params)
    return frame.assign(lift=frame["rate"] / (overall or 1), at_least=frame["low"] / (overall or 1)), sql, params


@st.cache_resource(max_entries=30, show_spinner=False)
def _labelled(
    where: str, state: tuple[Any, ...], sql: str, params: tuple[Any, ...], experts: int
) -> tuple[np.ndarray, np.ndarray, Any]:
    return expert_labels.counts(store_access.frame(sql, *params), experts)


def _label_sql(run: Row, layer: Layer, kind: str, of_tokens: bool) -> tuple[str, list[Any]]:
    return expert_labels.query(run["run"], layer.router, kind, of_tokens, part_of(run, layer)[0])


def labelled(run: Row, layer: Layer, kind: str, of_tokens: bool) -> tuple[np.ndarray, np.ndarray, Any]:
    """What ran [documents, labels, experts], tokens looked at [documents, labels], and the labels of one kind."""
    sql, params = _label_sql(run, layer, kind, of_tokens)
    return _labelled(str(store_access.path()), store_access.held().look(), sql, tuple(params), layer.experts)


def by_label(run: Row, layer: Layer, expert: int, kind: str, of_tokens: bool) -> tuple[pd.DataFrame, str, list[Any]]:
    """Share of the tokens with each label for which this expert ran, with its interval over documents, the largest first.

    `overall` is the same share of the tokens of all these labels: what each would be if labels did not matter.
    """
    from moescope import statistics  # SciPy is behind it

    sql, params = _label_sql(run, layer, kind, of_tokens)
    ran, every, labels = labelled(run, layer, kind, of_tokens)
    mine = ran[:, :, expert].astype(float)
    if not every.size:
        return pd.DataFrame(), sql, params
    documents = (every > 0).sum(0)
    share, low, high = statistics.over_documents(
        lambda n: n[..., 0] / n[..., 1], np.stack([mine, every], -1), units=documents, bounds=(0, 1),
        strata=None if of_tokens else every.argmax(1),  # a document has one of a sequence's labels
    )  # fmt: skip
    counts = {"tokens": every.sum(0).astype(int), "here": mine.sum(0).astype(int), "documents": documents}
    span = {"share": share, "low": low, "high": high, "overall": mine.sum() / every.sum()}
    return pd.DataFrame({"label": labels, **counts, **span}).sort_values("share", ascending=False), sql, params


def contexts(run: Row, layer: Layer, expert: int, token: str, by: str = "random") -> tuple[pd.DataFrame, str, list[Any]]:
    """Places where this was the first expert, with the tokens around: of highest weight ("most") or a fixed random sample.

    In large runs first of a part of it.
    """
    params, few = [layer.router, expert, *([token] if token else [])], part_of(run, layer)[0]
    bare = re.fullmatch(r"#\d{1,9}", token) and not store_access.rows(NAMED, run["model"], token)
    order, outer = ORDERS[by]
    for some in dict.fromkeys([few, ""]):
        only = (ONLY_ID if bare else ONLY) if token else ""
        sql = CONTEXTS.format(only=only, few=some, most=PLACES, around=AROUND, order=order, outer=outer)
        frame = store_access.frame(sql, *params)
        if frame["token"].nunique() == PLACES:
            break
    return frame, sql, params
