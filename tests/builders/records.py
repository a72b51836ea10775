"""The whole record of a store's runs, row by row in a stated order: every column of every table but what a clock says."""

import re
from pathlib import Path
from typing import Any

import moescope

VIEWS = ("decisions", "assignments", "decided")  # over tables whose columns say how they are packed
CLOCKS = {
    "runs": {"uid", "started", "finished", "seconds", "model_seconds", "trace_seconds", "command"},
    "forwards": {"seconds"},
}


def record(path: Path) -> dict[str, tuple[list[str], list[tuple[Any, ...]]]]:
    """{table: (its columns, its rows ordered by all of them)}; sums of floats to nine digits, for their order is free."""
    with moescope.open(path) as store:
        stored = store.rows("select table_name from duckdb_tables() where database_name = 'base' order by 1")
        tables = [table for (table,) in stored if table != "meta" and not re.match("routes_|decided_", table)]
        return {table: _rows(store, table) for table in [*tables, *VIEWS]}


def _rows(store: Any, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    described = store.rows(f"describe {table}")
    columns = {name: kind for name, kind, *_ in described if name not in CLOCKS.get(table, ())}
    summed = table.endswith("_rollup")
    said = [f'round("{n}", 9) as "{n}"' if summed and kind == "DOUBLE" else f'"{n}"' for n, kind in columns.items()]
    return list(columns), store.rows(f"select {', '.join(said)} from {table} order by all")
