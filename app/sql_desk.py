"""Free SQL, kept harmless: one SELECT, over the locked connection, with limits of time, memory and rows."""

import io
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import stored
import streamlit as st

from moescope.errors import AnalysisError
from moescope.store.exports import csv_of

ROWS = 10_000  # shown
FILE_ROWS = 2_000_000  # in a file
VIEWS = """
select t.table_name as name, coalesce(v.comment, b.comment, '') as comment, t.table_type = 'VIEW' as view
from information_schema.tables t
left join duckdb_views() v on v.view_name = t.table_name and v.database_name = t.table_catalog
left join duckdb_tables() b on b.table_name = t.table_name and b.database_name = t.table_catalog
where t.table_catalog = current_database() and t.table_name not similar to '(routes|decided)(_empty)?_[0-9]+'
order by view desc, name"""
COLUMNS = """
select column_name as "column", data_type as type, coalesce(comment, '') as meaning from duckdb_columns()
where table_name = ? and database_name = current_database() order by column_index"""


def examples(run: int = 0) -> dict[str, str]:
    """The queries of examples.sql by their first line, about one run."""
    text = Path(__file__).with_name("examples.sql").read_text().replace("run = 0", f"run = {run}")
    blocks = text.strip().split("\n\n")
    return {block.partition("\n")[0].removeprefix("-- "): block.partition("\n")[2] for block in blocks}


def checked(query: str) -> str:
    """The query, if it is one SELECT. AnalysisError otherwise."""
    try:
        found = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise AnalysisError(f"this is not SQL that DuckDB understands: {_words(error)}") from error
    if len(found) != 1:
        raise AnalysisError(f"one query at a time, please: there are {len(found)} statements")
    if found[0].type != duckdb.StatementType.SELECT:
        raise AnalysisError("this page only reads: begin with select, from, with, describe, show or summarize")
    return query


def fetch(query: str, limit: int = ROWS) -> tuple[pd.DataFrame, bool]:
    """Up to `limit` rows, and whether there were more. AnalysisError in one sentence."""
    cursor = stored.held().cursor()
    try:
        with stored.limited(cursor, stored.LIMIT_S):
            cursor.execute(checked(query))
            pieces, got = [cursor.fetch_df_chunk(1)], 0
            while len(pieces[-1]) and (got := got + len(pieces[-1])) <= limit:
                pieces.append(cursor.fetch_df_chunk(5))
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise
    except duckdb.Error as error:
        raise AnalysisError(_words(error)) from error
    return pd.concat(pieces[:-1] or pieces, ignore_index=True).head(limit), got > limit


def _words(error: Exception) -> str:
    """DuckDB's message on one line, with the place it points to."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:400]


@st.cache_data(max_entries=30, show_spinner=False)
def result(where: str, state: tuple[Any, ...], query: str) -> tuple[pd.DataFrame, bool]:
    """`fetch`, from the cache while the store has not changed."""
    return fetch(query)


def file_of(query: str, kind: str) -> Any:
    """The whole result (up to two million rows) as a file's content."""
    frame, _ = fetch(query, FILE_ROWS)
    if kind == "csv":
        return csv_of(frame)
    if kind == "json":
        return frame.to_json(orient="records", date_format="iso")
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
