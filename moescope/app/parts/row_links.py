"""Rows of tables open what they name: an expert, a token, a layer."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.parts import panels, pickers
from moescope.app.queries import store_access

TOKEN = "select t.token, t.sequence from tokens t where t.run = ? and t.sequence = ? and t.position = ? limit 1"
HOME = "select token, sequence from tokens where run = ? and token = ?"
Row = dict[str, Any]


def named(row: Row) -> str:
    """What a row names: token, expert, layer, or nothing."""
    known = {key for key, value in row.items() if not (value is None or value is pd.NA or value != value)}
    if {"sequence", "position"} <= known or "token" in known:
        return "token"
    return "expert" if {"router", "expert"} <= known else "layer" if "router" in known else ""


def opened(run: int, row: Row) -> tuple[str, dict[str, Any]] | None:
    """The page on which that is seen, and its state; None where the run has it not."""
    kind = named(row)
    if kind == "token":
        by_place = row.get("token") is None or row["token"] != row["token"]
        at = [row["sequence"], row["position"]] if by_place else [row["token"]]
        found = store_access.rows(TOKEN if by_place else HOME, run, *map(int, at))
        return ("tokens", {"run": run, **found[0]}) if found else None
    layer = pickers.labels(run).get(int(row["router"])) if kind else None
    if layer is None:
        return None
    return "experts", {"run": run, "layer": layer, "show": "all"} | (
        {"expert": int(row["expert"]), "show": None} if kind == "expert" else {}
    )


def table(run: int, frame: pd.DataFrame, sql: str, *, name: str) -> None:
    """A table with its SQL and its file, whose rows open what they name, where they name something."""
    first = next((kind for row in frame.head(50).to_dict("records") if (kind := named(row))), "")
    if not first:
        panels.table(frame, sql, name=name)
        return
    st.caption(f"Choose a row to open its {first}.")
    url_state.row(frame, name, partial(_chosen, run, frame), width="stretch")
    panels.files(frame, sql, name=name)


def _chosen(run: int, frame: pd.DataFrame, row: int | None) -> None:
    found = None if row is None else opened(run, frame.iloc[row].to_dict())
    if found is not None:
        url_state.request_page(found[0], **found[1])
