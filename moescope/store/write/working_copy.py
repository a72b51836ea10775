"""The file that a change works on: an empty store to begin with, or what is there made one of this schema."""

import os
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from ... import __version__
from ..files.paths import confine
from ..migrations import VERSION, migrate
from ..schema import create_tables, quote, refresh_views, view_comments
from ..trust import inert
from .scans import reach
from .unfinished_run import parts_folder

_MEMORY = 1 << 30  # bytes, at most
_ROW_GROUP = 983_040  # rows; of eight times DuckDB's own size, a column of packed bits fills its blocks


def opened(path: Path, reach: Path | None) -> duckdb.DuckDBPyConnection:
    """`path` for writing: in row groups that leave little of its blocks unused, and with part of the memory, since a model is
    there too; what does not fit is spilled beside it. Nothing else can be reached but the folder `reach`."""
    con = duckdb.connect()
    with suppress(duckdb.InvalidInputException):  # in a notebook without ipywidgets DuckDB has none, and refuses to set it
        con.execute("set enable_progress_bar = false")
    memory = min(_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    con.execute(f"set memory_limit = '{memory >> 20} MiB'")
    con.execute(f"set temp_directory = {quote(f'{path}.spill')}")
    con.execute(f"attach {quote(str(path))} as store (type duckdb, row_group_size {_ROW_GROUP})")
    con.execute("use store")
    confine(con, folders=[reach] if reach else [])
    return con


@cache
def empty() -> bytes:
    """A file with tables, views and their comments, and no row: made once per process, for every store to begin with."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.duckdb"
        with closing(opened(path, None)) as con:
            con.execute("begin")
            create_tables(con)
            refresh_views(con)
            con.execute("commit")
            con.execute("checkpoint")
        return path.read_bytes()


def begin(con: duckdb.DuckDBPyConnection, uid: str) -> None:
    """What an empty store says of itself."""
    rows = [("schema_version", VERSION), ("writer", __version__), ("created", datetime.now(UTC).isoformat()), ("uid", uid)]
    con.executemany("insert into meta values (?, ?)", rows)


def ready(con: duckdb.DuckDBPyConnection, store: Path, foreign: bool) -> None:
    """A store that is there as today's moescope has them. StoreError if it is `foreign` and what a stranger put there would
    run."""
    if foreign:
        inert(con, store, "store")
    reach(con, parts_folder(store))
    old = migrate(con, view_comments())
    create_tables(con)  # a store of an earlier version of this schema may lack one
    if old:
        refresh_views(con)
