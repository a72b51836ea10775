"""Changes of the schema, one after the other: how a store of an earlier version is read, and made one of this version.

A change is written down once, below. Readers show an earlier store under today's names; whatever writes into it (a trace, an
analysis that is saved, `moescope recover`) converts the copy that it changes, and renames that over the store as ever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb


@dataclass(frozen=True)
class Migration:
    """One step: columns that have another name since, that are gone, and that are new (null in earlier rows)."""

    leads_to: str  # the schema version
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # {table: {old: new}}
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # {table: columns}
    added: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # {table: {column: type}}


FIRST = "2"  # the earliest version that is read
MIGRATIONS = (
    # `site` was the word for a router too; no tracer ever filled the other two
    Migration("3", {"routers": {"site": "block_type"}}, {"experts": ("group", "parameters")}),
    # systems beyond Transformers: trees, sampled mixtures, pools by threshold, decisions that are not about one token
    Migration(
        "4",
        added={
            "routers": {
                "decides_on": "varchar",
                "pool_axes": "varchar",
                "parent_router": "varchar",
                "parent_expert": "usmallint",
            },
            "experts": {"expert_name": "varchar"},
            "pools": {"threshold": "float"},
        },
    ),
    # decisions whose experts are in no order of weight (`unranked`, of captures): no table of a fixed form changed, but a
    # reader that does not know them would show places as ranks
    # rows of large runs may lie apart from the file (table `apart`), which earlier moescope would not look for
    Migration("5"),
    # these rows may have the keys of the store, say of which run they are and what keys a file has (`apart.files`)
    Migration("6"),
)
VERSION = MIGRATIONS[-1].leads_to


def readable() -> tuple[str, ...]:
    """The schema versions that are read, this one last."""
    return (FIRST, *(step.leads_to for step in MIGRATIONS))


def old_name(version: str, table: str, column: str) -> str:
    """What today's column is called in a store of `version`."""
    for step in reversed(_since(version)):
        column = {new: old for old, new in step.renamed.get(table, {}).items()}.get(column, column)
    return column


def is_new(version: str, table: str, column: str) -> bool:
    """Whether a store of `version` was written before there was that column."""
    return any(column in step.added.get(table, ()) for step in _since(version))


def new_name(table: str, column: str) -> str | None:
    """What a column of any version is called today; None if it is gone."""
    for step in MIGRATIONS:
        if column in step.dropped.get(table, ()):
            return None
        column = step.renamed.get(table, {}).get(column, column)
    return column


def today(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that any version wrote, by today's names."""
    return {new: value for name, value in row.items() if (new := new_name(table, name)) is not None}


def migrate(con: duckdb.DuckDBPyConnection, views: Iterable[str]) -> bool:
    """Make the store that `con` may write one of this version; whether it was an earlier one. `views` go, to be made anew."""
    version = con.execute("select value from meta where key = 'schema_version'").fetchall()
    steps = _since(version[0][0]) if version else ()
    if not steps:
        return False
    for view in views:
        con.execute(f'drop view if exists "{view}"')
    for step in steps:
        for statement in _statements(con, step):
            con.execute(statement)
    con.execute("update meta set value = ? where key = 'schema_version'", [VERSION])
    con.execute("delete from meta where key = 'views'")
    return True


def _statements(con: duckdb.DuckDBPyConnection, step: Migration) -> list[str]:
    """What makes the change, of the tables that an earlier store has."""
    there = set(con.execute("select table_name, column_name from duckdb_columns() where not internal").fetchall())
    tables = {table for table, _ in there}
    renamed = [
        (table, old, new) for table, names in step.renamed.items() for old, new in names.items() if (table, old) in there
    ]
    dropped = [(table, name) for table, names in step.dropped.items() for name in names if (table, name) in there]
    added = [
        (table, name, kind)
        for table, columns in step.added.items()
        for name, kind in columns.items()
        if table in tables and (table, name) not in there
    ]
    return [
        *(f'alter table {table} rename column "{old}" to "{new}"' for table, old, new in renamed),
        *(f'alter table {table} drop column "{name}"' for table, name in dropped),
        *(f'alter table {table} add column "{name}" {kind}' for table, name, kind in added),
    ]


def _since(version: str) -> tuple[Migration, ...]:
    """The steps from a readable version to this one."""
    return MIGRATIONS[readable().index(version) :]
