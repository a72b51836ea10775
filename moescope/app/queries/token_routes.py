"""Sequences, their tokens, and the routes of tokens, as the store has them."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope.app.queries import store_access
from moescope.app.queries.layers import Layer
from moescope.show import token_routes as routes
from moescope.show.token_routes import ABOUT, LABELS, PAGE, TOKENS, at, plain

__all__ = ["ABOUT", "LABELS", "PAGE", "TOKENS", "at", "plain"]

SEQUENCES = """
select s.sequence, s.document, s.source, s.source_row, s.part, s.beam, s.stack, s.domain, s.class, s.tokens, s.height, s.width,
       left(s.text, 90) as text
from sequences s where s.run = ? and s.stack = ?"""
LABELLED = """ and sequence in (select sequence from sequence_labels where kind = ? and label = ?
  union select t.sequence from token_labels l join tokens t using (token) where t.run = s.run and l.kind = ? and l.label = ?)"""
FOUND = """ and (s.text ilike '%' || ? || '%' or s.document ilike '%' || ? || '%' or sequence in (
  select sequence from tokens where run = s.run and vocab_id in (
    select v.vocab_id from vocab v join runs u using (model) where u.run = ? and v.text ilike '%' || ? || '%')))"""
KINDS = """
select kind, list(distinct label order by label) as labels from token_labels
where token in (select token from tokens where run = ?) and label is not null and kind not in ('frame', 'predicted_id')
group by kind order by kind <> 'role', kind"""
ONE_KIND = "select token, min(label) as label from token_labels where kind = ? and token between ? and ? group by token"
ROUTES, ROUTE, SURE = (at(sql, None) for sql in (routes.ROUTES, routes.ROUTE, routes.SURE))


def routes_sql(forward: int | None) -> str:
    """The query of `tokens`, whose parameters that gives."""
    return at(routes.ROUTES, forward)


def about(token: int, run: int) -> dict[str, Any] | None:
    """What is known of one token, its text as one reads it."""
    return routes.about(store_access.frame, store_access.rows, token, run)


def way(token: int, run: int, forward: int | None) -> tuple[pd.DataFrame, list[dict[str, Any]], str]:
    """Experts of one token through all layers, how sure each router was, and the query of the first."""
    sql = at(routes.ROUTE, forward)
    return store_access.frame(sql, token, run), store_access.rows(at(routes.SURE, forward), token, run), sql


def sequences(run: int, stack: str, label: tuple[str, str] | None, search: str, limit: int = 300) -> list[dict[str, Any]]:
    """Sequences of a stack, those with a label, those in which a text or token occurs."""
    sql, params = SEQUENCES, [run, stack]
    if label:
        sql, params = sql + LABELLED, [*params, *label, *label]
    if search:
        sql, params = sql + FOUND, [*params, search, search, run, store_access.spelling(run).written(search)]
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
    frame = routes.tokens(store_access.frame, sequence, layer.router, page * PAGE, PAGE, forward)
    low, high = (int(frame["token"].min()), int(frame["token"].max())) if len(frame) else (0, 0)
    return frame, [layer.router, low, high, sequence]
