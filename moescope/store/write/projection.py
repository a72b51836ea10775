"""The rows of shards as those of the store: keys moved to free numbers, columns in the types of their tables."""

from collections.abc import Iterable, Mapping

import duckdb

from ...decisions import MAX_WIDTH
from ...errors import StoreError
from ..files.paths import parquet
from ..physical import tables
from ..trust import expected
from .placed import SPACE, shift
from .unfinished_run import KEYS, UnfinishedRun

_OWN = {"sequences", "pictures", "tokens", "forwards", "conditions", "pools", "logits", "decisions_long", "assignments_long"}
_OWN |= {"measures", "vocab_rollup"} | {f"{kind}_{k}" for kind in ("routes", "decided") for k in range(1, MAX_WIDTH + 1)}


def says_run(table: str) -> bool:
    """Whether rows of this table have a column `run`."""
    return table in _OWN


def projection(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, table: str, base: Mapping[str, int]) -> str:
    """SQL over the Parquet files of a table with keys that begin at `base`. StoreError for a column that the table has not."""
    source = parquet(part.files(table))
    names = [name for (name, *_) in con.execute(f"describe from {source}").fetchall()]
    return selected(table, names, source, shift(base, part.keys), part.path.name)


def selected(table: str, names: Iterable[str], source: str, moved: Mapping[str, int], part: str, alone: bool = True) -> str:
    """The same over `source`, which has the columns `names`, to whose keys `moved` is added; `alone`: it is one run's, else the
    rows say of which run they are."""
    by = {key: _moved(key, moved[SPACE.get(key, key)]) for key in KEYS if key != "run"}
    names = [name for name in names if name != "run" or not says_run(table)]
    if unknown := [name for name in names if name not in by and _type(table, name) is None]:
        raise StoreError(f"the shards of {part} have a column {unknown[0][:40]!r}, which {table} has not")
    columns = [f"{by[name]} as {name}" if name in by else _as(table, name) for name in names]
    sql = f"select {', '.join(columns)} from {source}"
    if table == "vocab":
        known = f"vocab v on (v.model = {moved['model']} and v.vocab_id = n.vocab_id)"
        return f"select distinct {moved['model']} as model, vocab_id, text from ({sql}) n anti join {known}"
    if not says_run(table):
        return sql
    run = f"{moved['run']}::uinteger" if alone else "run::uinteger"
    return f"select {run} as run, {', '.join(columns)} from {source}"


def _moved(key: str, by: int) -> str:
    """A key moved on, in a form that DuckDB looks through when it skips row groups by what is asked for."""
    if by == 0:
        return f"{key}::uinteger"
    return f"({key}::uinteger + {by}::uinteger)" if by > 0 else f"({key}::uinteger - {-by}::uinteger)"


def _type(table: str, name: str) -> str | None:
    """The type of a column, "" where it is as it comes; None if the table has no such column."""
    if table.endswith("_rollup") and table != "vocab_rollup":
        return ""
    return tables.column_type(name) if tables.is_routed(table) else expected()[table].get(name)


def _as(table: str, name: str) -> str:
    """A column in the table's type, so that no shard changes the type that others are seen in."""
    kind, quoted = _type(table, name), '"' + name.replace('"', '""') + '"'
    return f"{quoted}::{kind} as {quoted}" if kind else quoted
