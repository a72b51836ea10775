"""Bring the rows that lie apart into the file, so that the store is one file: to mail it, or to keep it.

A change like any other: the copy takes the rows, and is renamed over the file; what lay apart goes once nobody reads it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from ...errors import StoreError
from ..files.durable import exclusive, reason
from ..files.interrupts import defer_interrupt
from ..schema import is_split, refresh_views
from . import apart
from .change import check_target, clean_up, replace
from .join import insert_tables
from .scans import scans
from .unfinished_run import parts_folder


def pack(store: Path) -> list[int]:
    """The runs that were brought in; none where the store is one file already. StoreError where that cannot be done: nothing
    is changed then."""
    packed: list[int] = []
    check_target(store)
    with _said(store), defer_interrupt(), exclusive(store):
        replace(store, lambda con: packed.extend(_bring(con, store)))
        clean_up(store)
    return packed


@contextmanager
def _said(store: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, duckdb.Error) as error:
        raise StoreError(
            f"packing {store} failed ({reason(error)}); make room, or mend what it says; it is as it was"
        ) from error


def _bring(con: duckdb.DuckDBPyConnection, store: Path) -> list[int]:
    if not is_split(con):
        return []
    rows, folder = apart.lying(con, store, "store"), parts_folder(store)
    if fault := apart.changed(folder, rows):
        raise StoreError(f"{store} cannot be packed: of run {fault[0]}, {fault[1]}")
    for table in sorted({row.table for row in rows}):
        for scan in scans([row for row in rows if row.table == table]):
            insert_tables(con, {table: scan.sql(folder)})
    con.execute("insert into meta select distinct 'joined', part from apart")
    con.execute("delete from apart")
    apart.unite(con)
    con.execute("delete from meta where key = 'views'")
    refresh_views(con)
    return sorted({row.run for row in rows})
