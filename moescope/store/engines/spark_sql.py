"""DuckDB's SQL as Spark's (sqlglot), where that is certain to mean the same: of the functions that are known to do so alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .shared import Bounds, SharedStore
from .split import BIG

_SAME = {
    "Abs", "And", "Avg", "Case", "Ceil", "Coalesce", "Count", "DenseRank", "Exp", "Floor", "Greatest", "If", "Lag", "Lead",
    "Least", "Ln", "Max", "Median", "Min", "Not", "Nullif", "Or", "Pow", "Rank", "RowNumber", "Sqrt", "Sum", "Xor",
}  # fmt: skip
_NO = (
    "Pivot", "TableSample", "Lateral", "Unnest", "Lambda", "Bracket", "Dot", "IntDiv", "Placeholder", "Parameter", "Collate",
    "Interval", "Star", "Like", "ILike", "SimilarTo", "RegexpLike", "Glob",
)  # fmt: skip
_KINDS = {"BOOLEAN": "boolean", "VARCHAR": "string", "FLOAT": "float", "DOUBLE": "double", "UBIGINT": "decimal(20,0)"}
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


@dataclass(frozen=True)
class Asked:
    """A query for Spark, the tables that it reads, and names of columns that it may read of them."""

    query: str
    tables: tuple[str, ...]
    named: frozenset[str]

    def given(self, store: SharedStore, table: str, bounds: Sequence[Bounds]) -> tuple[list[str], str]:
        """(queries to DuckDB that give the table's rows together, Spark's schema of them)."""
        columns = {str(name): str(kind) for name, kind, *_ in _described(store, table)}
        wanted = [name for name in columns if name in self.named] or list(columns)[:1]
        cast = ", ".join(f'"{name}"::{_duckdb(columns[name])} as "{name}"' for name in wanted)
        schema = ", ".join(f"`{name}` {_spark(columns[name])}" for name in wanted)
        if table not in BIG or "token" not in columns:
            return [f"select {cast} from {table}"], schema
        return [f"select {cast} from {table} where {_within(*bound)}" for bound in bounds], schema


def read(store: SharedStore, query: str) -> Asked | None:
    """A query in Spark's SQL; None where one of its parts is not known to mean the same there."""
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(query, read="duckdb")
    except sqlglot.errors.SqlglotError:
        return None
    for node in list(tree.find_all(exp.Anonymous)):
        if str(node.this).lower() == "count_star":  # as DuckDB writes it
            node.replace(exp.Count(this=exp.Star()))
    ours = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables = {table.name for table in tree.find_all(exp.Table)} - ours
    if _foreign(tree, exp) or tables & ours or any(table.db for table in tree.find_all(exp.Table)):
        return None
    named = frozenset(str(one.this) for one in tree.find_all(exp.Identifier))
    kinds = {(table, str(name)): str(kind) for table in tables for name, kind, *_ in _described(store, table)}
    if any(name in named and _spark(kind) is None for (_, name), kind in kinds.items()):
        return None
    return Asked(tree.sql(dialect="spark"), tuple(sorted(tables)), named)


def _foreign(tree: Any, exp: Any) -> bool:
    """Whether there is anything in a query that is not of the forms that mean the same."""
    refused = tuple(getattr(exp, name) for name in _NO if hasattr(exp, name))
    for node in tree.walk():
        counting = isinstance(node, exp.Star) and isinstance(node.parent, exp.Count)
        real = isinstance(node, exp.Cast) and node.to.this in (exp.DataType.Type.DOUBLE, exp.DataType.Type.FLOAT)
        if isinstance(node, refused) and not counting:
            return True
        if isinstance(node, exp.Func) and type(node).__name__ not in _SAME and not real:
            return True
    return False


def _described(store: SharedStore, table: str) -> list[tuple[Any, ...]]:
    return store.con.execute(f"describe {table}").fetchall()


def _duckdb(kind: str) -> str:
    """The type in which a column goes over: Spark has no whole numbers without a sign."""
    return "BIGINT" if kind in _WHOLE else "DECIMAL(20,0)" if kind == "UBIGINT" else "VARCHAR" if kind[:4] == "ENUM" else kind


def _spark(kind: str) -> str | None:
    return "bigint" if kind in _WHOLE else "string" if kind[:4] == "ENUM" else _KINDS.get(kind)


def _within(first: int | None, stop: int | None) -> str:
    bounds = [f"token >= {first}"] if first is not None else []
    bounds += [f"token < {stop}"] if stop is not None else []
    return f"(({' and '.join(bounds) or 'true'}){' or token is null' if first is None else ''})"
