"""A connection that reaches one store and nothing else: no other file, no network, no change of settings."""

import os
from collections.abc import Sequence

import duckdb


def settings(memory: str) -> dict[str, str]:
    """DuckDB's settings for a connection that may use so much memory, and no disk."""
    threads = str(min(os.cpu_count() or 1, 4))
    return {"memory_limit": memory, "temp_directory": "", "enable_progress_bar": "false", "threads": threads}


def lock(con: duckdb.DuckDBPyConnection, folders: Sequence[str], memory: str) -> duckdb.DuckDBPyConnection:
    """The connection, from now on held to `memory` and to the files in `folders`, besides what it has attached."""
    for name, value in settings(memory).items():
        con.execute(f"set {name} = {quoted(value)}")
    con.execute(f"set allowed_directories = [{', '.join(quoted(f) for f in folders)}]")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")
    return con


def joined(con: duckdb.DuckDBPyConnection) -> bool:
    """True where finished and unfinished runs are shown together, by views in memory."""
    return bool(con.execute("select 1 from duckdb_tables() where database_name = 'memory' and table_name = 'runs'").fetchall())


def quoted(text: str) -> str:
    """`text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
