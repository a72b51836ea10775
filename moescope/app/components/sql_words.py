"""What the SQL field knows while one types: words in colours, and completion of tables, views and columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

SCRIPT = Path(__file__).with_suffix(".js")


@st.cache_resource(show_spinner=False)
def script() -> str:
    """The script, which looks for the field of the page by itself."""
    return SCRIPT.read_text(encoding="utf-8")


def show(known: Mapping[str, Sequence[str]]) -> None:
    """Teach the page's SQL field the columns of every table and view."""
    component = st.components.v2.component("moescope_sql_words", html="<span></span>", js=script())
    component(data={"known": [[name, list(columns)] for name, columns in known.items()]}, key="sql-words", height=1)
