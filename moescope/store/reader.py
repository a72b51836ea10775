"""Read a store: the finished file as it is, and the runs that are still being traced (or were cut off) beside it."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from ..errors import MoescopeError, StoreError
from .connect import connect, identity, joined
from .files.durable import Lock, reason
from .remote.addresses import glance, local, mirror_of
from .schema import HERE, create_views
from .sums.definitions import add_rollups, vocabulary
from .trust import expected, places_of, tables_of
from .write import apart
from .write.beside import Aside, beside, look
from .write.change import try_clean_up
from .write.join import count_rows, insert_head, kept_sums, offsets
from .write.projection import projection
from .write.scans import Apart, all_files, shown
from .write.unfinished_run import UnfinishedRun, parts_folder, unfinished_runs

_KEYED = ("forwards", "sequences", "tokens")
_SMALL = {"meta", "apart", "models", "runs", "routers", "experts", "vocab"}
_BROKEN = (MoescopeError, OSError, ValueError, KeyError, TypeError, AttributeError, duckdb.Error)  # what a broken run raises


class Store:
    """A store opened for reading; never in the way of a trace, and never changed.

    `sql` answers with a DuckDB relation: `.df()`, `.fetchall()`, `.to_arrow_table()`; the README lists the views.
    Unfinished runs are read from their shards as of the moment of opening; `refresh` looks again. `aside`: what lies beside
    the store and is not shown, and why.

    Whoever made the file, only tables of moescope's are read and nothing in it is run; queries reach nothing but the store: no
    other file, no network, no variable of the program (`store.con.register("name", frame)` gives them a frame), and DuckDB's
    settings stay as they are. `external` lifts that. `settings`: of DuckDB, for this connection. `comments`: views and columns
    bring theirs, which takes a tenth of a second.
    """

    opened: tuple[Any, ...] | None = None  # `state` as of the opening; None if it changed meanwhile
    _leases: tuple[Lock, ...] = ()
    aside: tuple[Aside, ...] = ()

    def __init__(
        self,
        path: str | Path,
        unfinished: bool = True,
        external: bool = False,
        comments: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.path = local(path)
        self._unfinished, self._external, self._comments, self._settings = unfinished, external, comments, dict(settings or {})
        self.con = self._open()

    def sql(self, query: str, params: Sequence[Any] | None = None) -> duckdb.DuckDBPyRelation:
        """Run one SQL query; `params` fill its `?`. Raises duckdb.Error as DuckDB does."""
        return self.con.sql(query, params=list(params)) if params else self.con.sql(query)

    def rows(self, query: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.con.execute(query, list(params or [])).fetchall()

    def state(self) -> tuple[Any, ...]:
        """Changes whenever the store does: for caches."""
        glance(self.path)
        return state_of(self.path)

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
            try_clean_up(self.path)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        before = self._state()
        con = self._opened()
        self.opened = before if before == self._state() else None
        return con

    def _state(self) -> tuple[Any, ...] | None:
        try:
            return self.state()
        except (OSError, ValueError):  # a name that no system has
            return None  # what is wrong, opening says

    def _opened(self) -> duckdb.DuckDBPyConnection:
        folder = parts_folder(self.path)
        looked = look(self.path)
        leased = {part.path: part.lease() for part in looked if isinstance(part, UnfinishedRun)}
        reach = [folder] if leased else []
        con = connect(self.path, reach, self._external, self._settings)  # after the leases: what it lacks stays readable
        try:
            rows = apart.lying(con, self.path, "base") if "apart" in places_of(con) else []
            if lost := apart.missing(folder, rows):
                raise StoreError(f"{self.path} cannot be read: {lost}")
            lasting = {row.part for row in rows}
            there = beside(self.path, looked if self._unfinished else [], identity(con), joined(con) | lasting)
            open_parts = [part for part in there.parts if leased.get(part.path)]
            shown, broken = _show(con, self.path, rows, open_parts, self._comments)
        except BaseException:
            con.close()
            raise
        self.aside = (*there.aside, *broken)
        stay = {part.path.name for part in shown} | lasting
        self._leases = tuple(lease for path, lease in leased.items() if lease and path.name in stay)
        leased.clear()
        if not stay and folder.is_dir():
            try_clean_up(self.path)  # what was joined while somebody read it
        return con


def state_of(path: Path) -> tuple[Any, ...]:
    """What there is of a store at `path`: two values that change with its file, and its unfinished runs. OSError if none."""
    stat, mirror = path.stat(), mirror_of(path)
    file = (stat.st_ino, stat.st_mtime_ns) if mirror is None else mirror.version()
    return *file, *((part.path.name, len(part.shards)) for part in unfinished_runs(path))


def open_store(
    path: str | Path, *, external: bool = False, comments: bool = False, settings: Mapping[str, str] | None = None
) -> Store:
    """Open a store for reading. StoreError in one sentence if it is missing, locked, of another version, damaged or no store.

    What lies beside it and cannot be shown is warned of. The keywords are those of `Store`.
    """
    store = Store(path, external=external, comments=comments, settings=settings)
    for aside in store.aside:
        warnings.warn(str(aside), stacklevel=2)
    return store


def _show(
    con: duckdb.DuckDBPyConnection, store: Path, rows: list[Apart], open_parts: list[UnfinishedRun], comments: bool
) -> tuple[list[UnfinishedRun], list[Aside]]:
    """Make the database in memory show the file, its `rows` apart and its unfinished runs as one store: by our views.

    Gives the runs that are shown, and what is left aside of those that are broken.
    """
    con.execute("use memory")
    sources = _sources(con, store)
    own = {table: list(sources[table]) for table in _KEYED}  # in which free numbers are looked for
    for table, scans in shown(con, rows, parts_folder(store)).items():
        sources.setdefault(table, []).extend(scans)
    if not open_parts:
        _views(con, sources)
        create_views(con, comments)
        all_files(con)
        return [], []
    return _show_unfinished(con, store, sources, own, open_parts, comments)


def _show_unfinished(
    con: duckdb.DuckDBPyConnection,
    store: Path,
    sources: dict[str, list[str]],
    own: dict[str, list[str]],
    open_parts: list[UnfinishedRun],
    comments: bool,
) -> tuple[list[UnfinishedRun], list[Aside]]:
    """The same where there are unfinished runs: their kept sums are counted into tables in memory."""
    for table in filter(_kept, sources):  # none of which lies apart
        con.execute(f"create table {table} as {' union all by name '.join(sources[table])}")
    added, aside = [], []
    for part in open_parts:
        whole, fault = part.whole()
        if fault:
            aside.append(
                Aside(part.path, f"what follows its first {whole} shards ({fault}); moescope recover {store} keeps those")
            )
        try:
            added.append((part.first(whole), _add(con, part.first(whole), sources, own)))
        except _BROKEN as error:
            aside.append(Aside(part.path, f"this run cannot be read ({reason(error)}); it stays there as it is"))
    for table in _KEYED:
        con.execute(f"drop view if exists {table}{HERE}")
    _views(con, {t: s for t, s in sources.items() if not _kept(t)})
    create_views(con, comments)
    counted = [vocabulary(base["run"]) for _, base in added]
    _views(con, {"vocab_rollup": [*sources["vocab_rollup"], *counted]})  # counted when it is asked for
    all_files(con)
    for part, base in added:
        add_rollups(con, base["run"], kept_sums(con, part, base))
        count_rows(con, base["run"])
    return [part for part, _ in added], aside


def _sources(con: duckdb.DuckDBPyConnection, store: Path) -> dict[str, list[str]]:
    """{table: SQL for its rows in the file}, of the columns that are moescope's; a table that the file lacks is empty."""
    found: dict[str, list[str]] = {}
    places = places_of(con)
    for table, columns in tables_of(con, store).items():
        quoted = ", ".join(f'{sql} as "{name}"' for name, sql in columns.items())
        found[table] = [f"select {quoted} from base.main.{places[table]}"]
    for table in expected().keys() - found.keys():
        empty = ", ".join(f'null::{kind} as "{name}"' for name, kind in expected()[table].items())
        found[table] = [f"select {empty} where false"]
    return found


def _add(
    con: duckdb.DuckDBPyConnection, part: UnfinishedRun, sources: dict[str, list[str]], own: dict[str, list[str]]
) -> dict[str, int]:
    """Add an unfinished run to what is shown, or raise and leave it as it was; gives where its keys begin."""
    con.execute("begin")
    try:
        _views(con, {f"{table}{HERE}": sql for table, sql in own.items()})
        base = offsets(con, part)
        insert_head(con, part, base, {"status": "running" if part.alive() else "interrupted", "progress": part.progress})
        new = {table: projection(con, part, table, base) for table in part.tables() - _SMALL}
        if part.files("vocab"):
            con.execute(f"insert into vocab by name {projection(con, part, 'vocab', base)}")
        for name in kept_sums(con, part, base) or ():
            projection(con, part, f"{name}_rollup", base)
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    for table, sql in new.items():
        sources.setdefault(table, []).append(sql)
        if table in own:
            own[table].append(sql)
    return base


def _kept(table: str) -> bool:
    """Small enough to be copied into memory."""
    return table in _SMALL or (table.endswith("_rollup") and table != "vocab_rollup")


def _views(con: duckdb.DuckDBPyConnection, sources: Mapping[str, Sequence[str]]) -> None:
    for table, selects in sources.items():
        con.execute(f"create or replace view {table} as " + " union all by name ".join(f"({s})" for s in selects))
