"""Counts over large runs are made on a fixed part of their forward passes, so that a page answers at once; it says so."""

from typing import Any

import streamlit as st

from moescope.app.wording import share

LAYER = 250_000  # assignments of one layer that are counted
EVERY = 1_000_000  # assignments of all layers together
FEW = """ and {name}forward in (select forward from (
    select forward, sum(tokens) over (order by hash(forward), forward) - tokens as before from forwards where run = {run})
  where before < {most})"""
NEAR = """ and {name}token in (select a.token from decisions a
  where a.router in (select min(router) from routers where run = {run} group by stack){few})"""
Row = dict[str, Any]


def forward_filter_sql(run: Row, assignments: int, each: float, name: str = "a.") -> tuple[str, float]:
    """A condition on `name`forward that keeps about so many assignments, `each` of them per token; and the share it keeps.

    Nothing and 1 where the run is small enough. Whole forward passes, chosen by a hash of their numbers.
    """
    most = max(int(assignments / max(each, 1)), 1)
    if (run["tokens"] or 0) <= 1.5 * most:
        return "", 1.0
    return FEW.format(name=name, run=int(run["run"]), most=most), most / run["tokens"]


def token_filter_sql(run: Row, forward_filter_sql: str, name: str = "t.") -> str:
    """The same as a condition on tokens: those that some router looked at in these forward passes."""
    return NEAR.format(name=name, run=int(run["run"]), few=forward_filter_sql) if forward_filter_sql else ""


def sample_note(kept: float) -> None:
    """Say that a part was counted."""
    if kept < 1:
        st.caption(f":material/info: Counted on {share(kept)} of the forward passes, chosen by a hash; the run is large.")
