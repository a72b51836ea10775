"""Read a store: the finished file as it is, and the runs that are still being traced (or were cut off) beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from .connect import connect, joined
from .merge import count_rows, insert_head, kept_sums, offsets, projection
from .parts import Lock, Part, parts, parts_folder
from .replace import tidy
from .rollups import add_rollups, vocabulary
from .schema import create_views

_SMALL = {"meta", "models", "runs", "routers", "experts", "vocab"}


class Store:
    """A store opened for reading; never in the way of a trace, and never changed.

    `sql` answers with a DuckDB relation: `.df()`, `.fetchall()`, `.to_arrow_table()`; the README lists the views.
    Unfinished runs are read from their shards as of the moment of opening; `refresh` looks again.
    """

    _leases: tuple[Lock, ...] = ()

    def __init__(self, path: str | Path, unfinished: bool = True) -> None:
        self.path = Path(path)
        self._unfinished = unfinished
        self.con = self._open()

    def sql(self, query: str, params: Sequence[Any] | None = None) -> duckdb.DuckDBPyRelation:
        """Run one SQL query; `params` fill its `?`. Raises duckdb.Error as DuckDB does."""
        return self.con.sql(query, params=list(params)) if params else self.con.sql(query)

    def rows(self, query: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.con.execute(query, list(params or [])).fetchall()

    def state(self) -> tuple[Any, ...]:
        """Changes whenever the store does: for caches."""
        stat = self.path.stat()
        return stat.st_ino, stat.st_mtime_ns, *((part.path.name, len(part.shards)) for part in parts(self.path))

    def refresh(self) -> None:
        """Look again at what is on disk."""
        self.close()
        self.con = self._open()

    def close(self) -> None:
        """Let go of the files."""
        self.con.close()
        leases, self._leases = self._leases, ()
        for lease in leases:
            lease.close()
        if leases:
            tidy(self.path)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        leased = [(part, part.lease()) for part in (parts(self.path) if self._unfinished else [])]
        con = connect(self.path)  # after the leases: what it does not have yet stays readable beside it
        done = joined(con)
        open_parts = [part for part, lease in leased if lease and part.path.name not in done]
        self._leases = tuple(lease for part, lease in leased if lease and part in open_parts)
        if open_parts:
            try:
                _show(con, open_parts)
            except BaseException:
                con.close()
                self._leases = ()
                raise
        elif parts_folder(self.path).is_dir():
            leased.clear()
            tidy(self.path)  # what was joined while somebody read it
        return con


def open_store(path: str | Path) -> Store:
    """Open a store for reading. StoreError in one sentence if it is missing, locked, of another version or no store."""
    return Store(path)


def _show(con: duckdb.DuckDBPyConnection, open_parts: list[Part]) -> None:
    """Make the database in memory show the file and its unfinished runs as one store."""
    con.execute("use memory")
    names = _names(con, open_parts)
    sources = {table: [f"from base.{table}"] if known else [] for table, known in names.items()}
    for table in names:
        if _kept(table):
            con.execute(f"create table {table} as from base.{table}")
    bases = []
    for part in open_parts:
        base = _offsets(con, part, sources)
        bases.append(base)
        insert_head(con, part, base, {"status": "running" if part.alive() else "interrupted", "progress": part.progress})
        for table in part.tables() - _SMALL:
            sources[table].append(projection(con, part, table, base))
        if part.files("vocab"):
            con.execute(f"insert into vocab by name {projection(con, part, 'vocab', base)}")
    _views(con, {t: s for t, s in sources.items() if not _kept(t)})
    create_views(con)
    counted = [vocabulary(base["run"]) for base in bases]
    _views(con, {"vocab_rollup": [*sources["vocab_rollup"], *counted]})  # counted when it is asked for
    for part, base in zip(open_parts, bases):
        add_rollups(con, base["run"], kept_sums(con, part, base))
        count_rows(con, base["run"])


def _kept(table: str) -> bool:
    """Small enough to be copied into memory."""
    return table in _SMALL or (table.endswith("_rollup") and table != "vocab_rollup")


def _names(con: duckdb.DuckDBPyConnection, open_parts: list[Part]) -> dict[str, bool]:
    """Every physical table, and whether the file has it."""
    rows = con.execute("select table_name from duckdb_tables() where database_name = 'base'").fetchall()
    names = dict.fromkeys((name for (name,) in rows), True)
    return names | {t: False for part in open_parts for t in part.tables() if t not in names}


def _offsets(con: duckdb.DuckDBPyConnection, part: Part, sources: dict[str, list[str]]) -> dict[str, int]:
    _views(con, {table: sources[table] for table in ("forwards", "sequences", "tokens")})
    return offsets(con, part)


def _views(con: duckdb.DuckDBPyConnection, sources: dict[str, list[str]]) -> None:
    for table, selects in sources.items():
        con.execute(f"create or replace view {table} as " + " union all by name ".join(f"({s})" for s in selects))
