"""Rows of tables open what they name: an expert, a token, a layer."""

from functools import partial

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.parts import figures, links


def table(run: int, frame: pd.DataFrame, sql: str, *, name: str) -> None:
    """A table with its SQL and its file, whose rows open what they name, where they name something."""
    known = links.routed(run, frame)
    first = next((kind for row in known.head(50).to_dict("records") if (kind := links.named(row))), "")
    if not first:
        figures.table(frame, sql, name=name)
        return
    st.caption(f"Choose a row to open its {first}.")
    url_state.row(frame, name, partial(_chosen, run, known), width="stretch")
    figures.files(frame, sql, name=name)


def _chosen(run: int, frame: pd.DataFrame, row: int | None) -> None:
    found = None if row is None else links.opened(run, frame.iloc[row].to_dict())
    if found is not None:
        url_state.request_page(found[0], **found[1])
