"""What of a file is ours: the tables of the schema with its columns and types. The rest of it is nobody's business here.

A store may come from a stranger. Its views, macros and triggers are his; so we make our own views over his tables, read of
them only the columns that we know, and refuse a file in which one of these is something else.
"""

from collections.abc import Mapping
from functools import cache

import duckdb

from ..errors import StoreError
from .migrations import VERSION, is_new, old_name
from .physical.tables import column_type, is_routed
from .schema import BULK, HERE, create_tables, is_bulk

Columns = Mapping[str, str]
_STRANGE = "is not a moescope store as moescope writes it"


@cache
def expected() -> dict[str, dict[str, str]]:
    """{table: {column: type}} of the fixed tables, as DuckDB says them."""
    with duckdb.connect() as con:
        create_tables(con, comments=False)
        return _columns(con, "memory")


def _columns(con: duckdb.DuckDBPyConnection, database: str) -> dict[str, dict[str, str]]:
    """{table: {column: type}}; a column that computes something has the type `computed`."""
    rows = con.execute(
        "select table_name, column_name, case when column_default is null then data_type else 'computed' end "
        "from duckdb_columns() join duckdb_tables() using (database_name, schema_name, table_name) "
        "where database_name = ? and schema_name = 'main' order by duckdb_tables.table_oid, column_index",
        [database],
    ).fetchall()
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found


def schema_version(con: duckdb.DuckDBPyConnection) -> str | None:
    """The schema version of an attached file, if there is a table that can say it."""
    columns = con.execute(
        "select column_name from duckdb_columns() join duckdb_tables() using (database_name, schema_name, table_name) where "
        "database_name = 'base' and schema_name = 'main' and table_name = 'meta' and data_type = 'VARCHAR' "
        "and column_default is null order by 1"
    ).fetchall()
    if columns != [("key",), ("value",)]:
        return None
    found = con.execute("select value from base.main.meta where key = 'schema_version'").fetchall()
    return found[0][0] if found else None


def tables_of(con: duckdb.DuckDBPyConnection, store: object, version: str | None = None) -> dict[str, dict[str, str]]:
    """{table: {column: SQL for it in the file}} of an attached file, of the columns that we know; null where it is newer.

    `version`: of its schema, if known. StoreError if one of our names is something else there.
    """
    version = version or schema_version(con) or VERSION
    views = con.execute("select view_name from duckdb_views() where database_name = ? and not internal", ["base"]).fetchall()
    there = _columns(con, "base")
    split = {name for name in BULK if name + HERE in there}  # views show what is there and what lies apart as one
    for name in sorted({name for (name,) in views} & (expected().keys() - split)):
        raise StoreError(f"{store} {_STRANGE}: {name} is a view there; do not trust it")
    for name in sorted(there.keys() & {table.removesuffix(HERE) for table in there if _split(table)}):
        raise StoreError(f"{store} {_STRANGE}: {name} is there twice; do not trust it")
    ours = {table: table.removesuffix(HERE) if _split(table) else table for table in there}
    return {
        name: _known(store, name, there[table], version)
        for table, name in ours.items() if name in expected() or is_routed(name)
    }  # fmt: skip


def _split(table: str) -> bool:
    return table.endswith(HERE) and is_bulk(table.removesuffix(HERE))


def places_of(con: duckdb.DuckDBPyConnection, database: str = "base") -> dict[str, str]:
    """{table: the name under which its rows lie in an attached file}."""
    there = _columns(con, database)
    return {table.removesuffix(HERE) if _split(table) else table: table for table in there}


def inert(con: duckdb.DuckDBPyConnection, store: object, database: str) -> None:
    """StoreError if writing into an attached file would run what somebody put there: a trigger, or a macro that takes the place
    of one of DuckDB's functions."""
    found = con.execute(
        "select 'trigger', trigger_name from duckdb_triggers() where database_name = $1 union all "
        "select 'macro', function_name from duckdb_functions() where database_name = $1 and function_name in "
        "(select function_name from duckdb_functions() where database_name = 'system') order by all",
        [database],
    ).fetchall()
    for kind, name in found:
        raise StoreError(f"{store} {_STRANGE}: it has a {kind} {name}; nothing is written into it")


def _known(store: object, table: str, there: Columns, version: str) -> dict[str, str]:
    fixed = expected().get(table)
    known = fixed or {name: kind.upper() for name in there if (kind := column_type(name))}
    found: dict[str, str] = {}
    for name, kind in known.items():
        old = old_name(version, table, name)
        if old not in there and is_new(version, table, name):
            found[name] = f"null::{kind}"
        elif (other := there.get(old, "missing")) != kind:
            raise StoreError(f"{store} {_STRANGE}: {table}.{old} is {other} there, not {kind.lower()}; do not trust it")
        else:
            found[name] = f'"{old}"'
    return found
