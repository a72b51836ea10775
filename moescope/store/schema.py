"""The schema: created from schema.sql and views.sql, every table, view and column with its comment."""

import hashlib
import re
from functools import cache
from importlib.resources import files

import duckdb

from .physical.tables import (
    ASSIGNMENT_COMMENTS,
    DECISION_COMMENTS,
    ROUTED_VIEWS,
    comment_routed,
    create_routed_views,
    is_routed,
    routed_views,
)

_STATEMENT = re.compile(r"-- ([^\n]+)\n(create (table|view) (\w+).*?;)[ \t]*(?:\n|$)", re.S)
_TABLE_COLUMN = re.compile(r'^  "?(\w+)"? [^\n]*?-- ([^\n]+)$', re.M)
_VIEW_COLUMN = re.compile(r'^  [^\n]*?"?(\w+)"?,? -- ([^\n]+)$', re.M)
HERE = "_here"  # the table with the rows in the file, where others of its name lie apart and a view shows both
_BULK = {"forwards", "conditions", "sequences", "sequence_labels", "pictures", "tokens", "token_labels", "pools", "logits"}
BULK = frozenset(_BULK | {"decisions_long", "assignments_long", "vocab_rollup"})
_WHOLE = re.compile(r"^  (\w+)\.\*,?$", re.M)


@cache
def statements(name: str) -> tuple[tuple[str, str, str, str], ...]:
    """(kind, name, statement, comment) of every table or view in `name`.sql, in its order."""
    text = files(__package__).joinpath(f"{name}.sql").read_text()
    return tuple((m[3], m[4], m[2], m[1]) for m in _STATEMENT.finditer(text))


@cache
def tables() -> tuple[str, ...]:
    """Names of the fixed physical tables (the routes_<k> tables come as they are needed)."""
    return tuple(name for _, name, _, _ in statements("schema"))


def is_bulk(table: str) -> bool:
    """Whether rows of this table may lie apart from the file."""
    return table in BULK or is_routed(table)


def is_split(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether rows lie apart from the database that `con` uses, so that views show them and those in it as one."""
    return f"tokens{HERE}" in _names(con, "table") | _names(con, "view")


def here(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """The table of that database that rows of `table` go into."""
    return table + HERE if is_bulk(table) and is_split(con) else table


def create_tables(con: duckdb.DuckDBPyConnection, comments: bool = True) -> None:
    """Make the physical tables that are not there yet."""
    there = _names(con, "table")
    for kind, name, statement, comment in statements("schema"):
        if name not in there and name + HERE not in there:
            con.execute(statement)
            if comments:
                _comment(con, kind, name, comment, column_comments()[name])


def _names(con: duckdb.DuckDBPyConnection, kind: str) -> set[str]:
    rows = con.execute(f"select {kind}_name from duckdb_{kind}s() where database_name = current_database() and not internal")
    return {name for (name,) in rows.fetchall()}


def create_views(con: duckdb.DuckDBPyConnection, comments: bool = True) -> None:
    """Make the views over whatever tables or views of the physical names are in sight.

    Their comments take several times as long as they do: who does not show them can do without.
    """
    create_routed_views(con, comments)
    for kind, name, statement, comment in statements("views"):
        con.execute(statement.replace("create view", "create or replace view", 1))
        if comments:
            _comment(con, kind, name, comment, column_comments()[name])


def refresh_views(con: duckdb.DuckDBPyConnection) -> None:
    """Make the views anew where those that are there are of other tables, or by another moescope.

    Those that name no routes_<k> stay when only these have changed: they read the others by name.
    """
    fixed = _digest(statements("views"), column_comments())
    routed = _digest(routed_views(con), ROUTED_VIEWS, DECISION_COMMENTS, ASSIGNMENT_COMMENTS)
    found = con.execute("select value from meta where key = 'views'").fetchall()
    if found == [(f"{fixed} {routed}",)]:
        return
    if found and found[0][0].startswith(fixed):
        create_routed_views(con)
    else:
        create_views(con)
    con.execute("delete from meta where key = 'views'")
    con.execute("insert into meta values ('views', ?)", [f"{fixed} {routed}"])


def _digest(*said: object) -> str:
    return hashlib.sha256(repr(said).encode()).hexdigest()


def view_comments() -> dict[str, str]:
    """What every view holds, by its name."""
    said = {name: comment for _, name, _, comment in statements("views")}
    return dict(sorted((said | ROUTED_VIEWS).items()))


@cache
def column_comments() -> dict[str, dict[str, str]]:
    """{table or view: {column: comment}}. A column that a view takes over by `alias.*` says what it says in that relation."""
    found = {name: dict(_TABLE_COLUMN.findall(statement)) for _, name, statement, _ in statements("schema")}
    for _, name, statement, _ in statements("views"):
        taken: dict[str, str] = {}
        for alias in _WHOLE.findall(statement):
            relations = re.findall(rf"\b(?:from|join) (\w+) {alias}\b", statement)
            taken |= found[relations[0]]
        found[name] = taken | dict(_VIEW_COLUMN.findall(statement))
    return found


def comment_view(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """What a table of this schema says of itself, said of the view that shows its rows."""
    if is_routed(name):
        comment_routed(con, "view", name, int(name.rpartition("_")[2]))
        return
    said = {table: comment for _, table, _, comment in statements("schema")}
    _comment(con, "view", name, said[name], column_comments()[name])


def _comment(con: duckdb.DuckDBPyConnection, kind: str, name: str, text: str, columns: dict[str, str]) -> None:
    con.execute(f"comment on {kind} {name} is {quote(text)}")
    for column, words in columns.items():
        con.execute(f'comment on column {name}."{column}" is {quote(words)}')


def quote(text: str) -> str:
    """`text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
