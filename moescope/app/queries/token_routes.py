"""Sequences, their tokens, and the routes of tokens, as the store has them."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from moescope.app.queries import store_access
from moescope.app.queries.layers import Layer

PAGE = 1500  # tokens shown at once
SEQUENCES = """
select s.sequence, s.document, s.source, s.source_row, s.part, s.beam, s.stack, s.domain, s.class, s.tokens, s.height, s.width,
       left(s.text, 90) as text
from sequences s where s.run = ? and s.stack = ?"""
LABELLED = """ and sequence in (select sequence from sequence_labels where kind = ? and label = ?
  union select t.sequence from token_labels l join tokens t using (token) where t.run = s.run and l.kind = ? and l.label = ?)"""
FOUND = """ and (s.text ilike '%' || ? || '%' or s.document ilike '%' || ? || '%' or sequence in (
  select sequence from tokens where run = s.run and vocab_id in (
    select v.vocab_id from vocab v join runs u using (model) where u.run = ? and v.text ilike '%' || ? || '%')))"""
TOKENS = """
select t.token, t.position, t.unit, coalesce(t.text, '#' || t.vocab_id, case when t.unit = 'text' then '?' end) as text,
       t.generated, t.special, t.y, t.x
from token_text t where t.sequence = ? order by t.position limit ? offset ?"""
_ROUTES = """
select token, list(expert order by coalesce(rank, slot)) as experts,
  list(weight order by coalesce(rank, slot)) as weights, list(dropped order by coalesce(rank, slot)) as drops
from assignments where router = ? and token between ? and ? and iteration = 0
  and token in (select token from tokens where sequence = ?){step}
group by token, forward qualify row_number() over (partition by token order by forward desc) = 1"""
_DECISIONS = """
select token, entropy, margin from decisions
where router = ? and token between ? and ? and iteration = 0{step}
qualify row_number() over (partition by token order by forward desc) = 1"""
LABELS = """
select token, string_agg(kind || ' ' || label, ' · ' order by kind) as labels,
       max(case when kind = 'frame' then try_cast(label as integer) end) as frame,
       max(case when kind = 'medium' then label end) as medium, max(case when kind = 'view' then label end) as view
from token_labels where token between ? and ? group by token"""
KINDS = """
select kind, list(distinct label order by label) as labels from token_labels
where token in (select token from tokens where run = ?) and label is not null and kind not in ('frame', 'predicted_id')
group by kind order by kind <> 'role', kind"""
ONE_KIND = "select token, min(label) as label from token_labels where kind = ? and token between ? and ? group by token"
_ROUTE = """
select r.stack, r.layer, r.router, r.experts, a.iteration, a.rank, a.expert, a.weight, a.dropped, a.buffer_position
from assignments a join routers r using (router) where a.token = ? and a.run = ?{step}
order by r.layer, a.iteration, coalesce(a.rank, a.slot)"""
_SURE = """
select r.layer, d.router, d.iteration, d.entropy, d.margin, d.log_sum_exp, d.selected, f.phase
from decisions d join routers r using (router) left join forwards f using (forward) where d.token = ? and d.run = ?{step}
order by r.layer, d.iteration"""
ABOUT = """
select t.token, t.sequence, t.position, t.unit,
       coalesce(t.text, '#' || t.vocab_id, case when t.unit = 'text' then '?' end) as text,
       t.vocab_id, t.y, t.x, t.generated, t.special, t.document, t.stack,
       (select string_agg(distinct kind || ': ' || label, ' · ') from labels l where l.token = t.token) as labels
from token_text t where t.token = ? and t.run = ?"""


def at(sql: str, forward: int | None) -> str:
    """The query of one forward, of all (of the last one, where a token has one row) with None."""
    return sql.format(step="" if forward is None else f" and forward = {int(forward)}")


ROUTES, ROUTE, SURE = (at(sql, None) for sql in (_ROUTES, _ROUTE, _SURE))


def routes_sql(forward: int | None) -> str:
    """The query of `tokens`, whose parameters that gives."""
    return at(_ROUTES, forward)


def way(token: int, run: int, forward: int | None) -> tuple[pd.DataFrame, list[dict[str, Any]], str]:
    """Experts of one token through all layers, how sure each router was, and the query of the first."""
    sql = at(_ROUTE, forward)
    return store_access.frame(sql, token, run), store_access.rows(at(_SURE, forward), token, run), sql


def sequences(run: int, stack: str, label: tuple[str, str] | None, search: str, limit: int = 300) -> list[dict[str, Any]]:
    """Sequences of a stack, those with a label, those in which a text or token occurs."""
    sql, params = SEQUENCES, [run, stack]
    if label:
        sql, params = sql + LABELLED, [*params, *label, *label]
    if search:
        sql, params = sql + FOUND, [*params, search, search, run, search]
    return store_access.rows(f"{sql} order by s.sequence limit {limit}", *params)


def kinds(run: int, most: int = 60) -> dict[str, list[str]]:
    """Kinds of labels of tokens, roles first, and their values; those with more than `most` are left out."""
    rows = store_access.rows(KINDS, run)
    return {row["kind"]: list(row["labels"]) for row in rows if len(row["labels"]) <= most}


def labelled(frame: pd.DataFrame, kind: str) -> pd.Series:
    """The label of this kind of each token of a frame of `tokens`; None for none."""
    low, high = int(frame["token"].min()), int(frame["token"].max())
    found = store_access.frame(ONE_KIND, kind, low, high).set_index("token")["label"]
    labels = frame["token"].map(found)
    return labels.astype(object).where(labels.notna(), None)


def partners(sequence: dict[str, Any], run: int) -> list[dict[str, Any]]:
    """The same input on the other side of an encoder–decoder model."""
    sql = SEQUENCES.replace("s.stack = ?", "s.stack <> ?") + (
        " and s.source is not distinct from ? and s.source_row is not distinct from ?"
        " and s.part is not distinct from ? order by 1 limit 1"
    )
    return store_access.rows(sql, run, sequence["stack"], sequence["source"], sequence["source_row"], sequence["part"])


def tokens(sequence: int, layer: Layer, page: int = 0, forward: int | None = None) -> tuple[pd.DataFrame, list[Any]]:
    """Tokens of a sequence with their route through one layer; and the parameters of ROUTES."""
    return _tokens(str(store_access.path()), store_access.held().look(), sequence, layer, page, forward)


@st.cache_data(max_entries=60, show_spinner=False, hash_funcs={Layer: lambda layer: layer.router})
def _tokens(
    where: str, state: tuple[Any, ...], sequence: int, layer: Layer, page: int, forward: int | None
) -> tuple[pd.DataFrame, list[Any]]:
    frame = store_access.frame(TOKENS, sequence, PAGE, page * PAGE)
    if frame.empty:
        return frame, [layer.router, 0, 0, sequence]
    low, high = int(frame["token"].min()), int(frame["token"].max())
    params = [layer.router, low, high, sequence]
    routes = store_access.frame(routes_sql(forward), *params)
    frame = frame.merge(routes, on="token", how="left")
    frame = frame.merge(store_access.frame(at(_DECISIONS, forward), layer.router, low, high), on="token", how="left")
    frame = frame.merge(store_access.frame(LABELS, low, high), on="token", how="left")
    for column in ("experts", "weights", "drops"):
        frame[column] = [plain(v) for v in frame[column]]
    frame["labels"] = frame["labels"].fillna("")
    return frame, params


def plain(values: Any) -> list[Any]:
    """A cell that holds a list, as plain values; what is missing as None."""
    if not isinstance(values, list | np.ndarray):
        return []
    return [None if v is None or v != v else v.item() if hasattr(v, "item") else v for v in values]
