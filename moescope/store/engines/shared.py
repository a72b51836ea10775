"""A store of which large groupings are counted by many processes, each over a range of tokens."""

import atexit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import duckdb
import pyarrow as pa

from ...errors import InputError, StoreError
from .. import reader
from ..reader import Store
from .split import BIG, LARGE, Grouping, Node, groupings, parsed, tables_of, written

LEAST = 1 << 20  # tokens from which on a store is worth the trouble
_PLAIN = {"BOOLEAN", "VARCHAR", "DATE", "TIMESTAMP", "FLOAT", "DOUBLE", "HUGEINT", "UHUGEINT"}
_PLAIN |= {f"{sign}{name}" for sign in ("", "U") for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")}


Bounds = tuple[int | None, int | None]


class Engine(Protocol):
    """Processes that answer SQL about a store."""

    name: str
    parts: int

    def ask(self, path: Path, opened: tuple[Any, ...] | None, queries: Sequence[str]) -> list[pa.Table]:
        """The answers, in order. StoreError where the store is another than the one that was opened."""

    def close(self) -> None:
        """Let go of the processes."""


@runtime_checkable
class WholeEngine(Engine, Protocol):
    """One that also answers queries that cannot be counted by range."""

    def ask_whole(self, store: "SharedStore", query: str, bounds: Sequence[Bounds]) -> pa.Table | None:
        """The answer, its columns in order; None for a query that is not certain to mean the same there."""


class SharedStore(Store):
    """A store as ever, whose groupings over large tables are counted by an engine, range by range of its tokens.

    Counts, minima and maxima are those of one process; sums of floats are, to rounding. `shared`, `whole`: of so many queries
    some of it was counted so, and of so many nothing.
    """

    def __init__(self, path: str | Path, engine: Engine, least: int = LEAST, **how: Any) -> None:
        super().__init__(path, **how)
        self.engine, self._least, self.shared, self.whole = engine, least, 0, 0
        self._numbers = 0
        self.adhoc = True

    @contextmanager
    def noting(self) -> Iterator[list[str]]:
        """Only count by range while this is open; the list then has a sentence of how queries were answered, if any were.

        What is to be bit for bit DuckDB's answer is not given to another dialect of SQL.
        """
        said: list[str] = []
        before, self.adhoc = (self.shared, self.whole, self.adhoc), False
        try:
            yield said
        finally:
            shared, whole, self.adhoc = self.shared - before[0], self.whole - before[1], before[2]
            if shared + whole:
                why = "" if self._bounds else " (the store is too small to be worth it)"
                said.append(
                    f"engine {self.engine.name}: {shared} of {shared + whole} queries were counted over ranges of tokens, "
                    f"the rest by DuckDB in the asking process{why}"
                )

    def sql(self, query: str, params: Sequence[Any] | None = None) -> duckdb.DuckDBPyRelation:
        """Run one SQL query; `params` fill its `?`. Raises duckdb.Error as DuckDB does."""
        return super().sql(*self._shared(query, params))

    def rows(self, query: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return super().rows(*self._shared(query, params))

    def close(self) -> None:
        """Let go of the files, and of the engine."""
        super().close()
        if hasattr(self, "engine"):
            self.engine.close()

    @cached_property
    def _bounds(self) -> list[Bounds]:
        """Ranges of tokens; none for a store that is small."""
        ((most,),) = super().rows("select max(token) from tokens")
        if (most or 0) + 1 < max(self._least, 2):
            return []
        cuts = sorted({(most + 1) * part // self.engine.parts for part in range(1, self.engine.parts)} - {0})
        return list(zip([None, *cuts], [*cuts, None]))

    @cached_property
    def _names(self) -> tuple[set[str], set[str]]:
        """Tables and views; aggregates of DuckDB."""
        known = super().rows("select table_name from information_schema.tables where table_catalog in ('memory', 'base')")
        aggregates = super().rows("select distinct function_name from duckdb_functions() where function_type = 'aggregate'")
        return {name for (name,) in known}, {name for (name,) in aggregates}

    def _shared(self, query: str, params: Sequence[Any] | None) -> tuple[str, Sequence[Any] | None]:
        """The query over what the engine counted; as it is, where nothing of it can be counted elsewhere."""
        try:
            tree = parsed(self.con, query, params) if self._bounds else None
            elsewhere = None if tree is None else self._elsewhere(tree)
        except (duckdb.Error, pa.ArrowException):
            elsewhere = None  # as one query it says what is wrong, if anything is
        self.shared += elsewhere is not None
        self.whole += elsewhere is None
        return (query, params) if elsewhere is None else (elsewhere, None)

    def _elsewhere(self, tree: Node) -> str | None:
        """The query over what the engine gave; None where it gives nothing of it."""
        found = list(groupings(tree, *self._names))
        for grouping in found:
            self._counted(grouping)
        if not found:
            return self._asked_whole(tree) if self.adhoc else None
        return written(self.con, tree)

    def _asked_whole(self, tree: Node) -> str | None:
        """SQL for what the engine answers to a query that cannot be counted by range; None where it does not take it."""
        if not isinstance(self.engine, WholeEngine) or not tables_of(tree) & set(BIG[:LARGE]):
            return None
        query = written(self.con, tree)
        columns = [(str(name), str(kind)) for name, kind, *_ in super().rows(f"describe {query}")]
        if (found := self.engine.ask_whole(self, query, self._bounds)) is None:
            return None
        name = self._registered(found.rename_columns([f"c{number}" for number in range(len(columns))]))
        put = [f"cast(c{number} as {kind}) as {_quoted(column)}" for number, (column, kind) in enumerate(columns)]
        return f"select {', '.join(put)} from {name}"

    def _registered(self, rows: pa.Table) -> str:
        self._numbers += 1
        name = f"counted_{self._numbers}"
        self.con.register(name, rows)
        return name

    def _counted(self, grouping: Grouping) -> None:
        """Count a grouping by range, and put what came of it in its place in the query."""
        columns = super().rows(f"describe {written(self.con, grouping.whole)}")
        kinds = [str(kind) for _, kind, *_ in columns]
        if unusual := [kind for kind in kinds if kind not in _PLAIN and not kind.startswith("DECIMAL")]:
            raise duckdb.InvalidInputException(f"no column of {unusual[0]} is sent between processes")
        numbered = ", ".join(f"c{n}" for n in range(len(kinds)))
        sent = ", ".join(f"c{n}::varchar as c{n}" if "HUGEINT" in kind else f"c{n}" for n, kind in enumerate(kinds))
        asked = [f"select {sent} from ({grouping.over(self.con, *bound)}) p({numbered})" for bound in self._bounds]
        found = self.engine.ask(self.path, self.opened, asked)
        name = self._registered(pa.concat_tables(found, promote_options="permissive"))
        self._replace(grouping, name, [str(column) for column, *_ in columns], kinds)

    def _replace(self, grouping: Grouping, name: str, columns: list[str], kinds: list[str]) -> None:
        put = [
            f"cast({how}(cast(c{n} as {kind})) as {kind})" if how else f"cast(c{n} as {kind})"
            for n, (how, kind) in enumerate(zip(grouping.merged, kinds))
        ]
        said = ", ".join(f"{sql} as {_quoted(column)}" for sql, column in zip(put, columns))
        node = parsed(self.con, f"select * from (select {said} from {name} group by all)")
        assert node is not None
        modifiers = grouping.node.get("modifiers", [])
        grouping.node.clear()
        grouping.node.update(node | {"modifiers": modifiers})


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


_kept: dict[Path | str, Store] = {}  # of a process that answers: the store that it was asked about last


def answers(path: Path | str, opened: tuple[Any, ...] | None, query: str) -> pa.Table:
    """One query, in a process of an engine. StoreError where the store is another than the one that was opened."""
    store = _kept.get(path)
    if store is None or store.opened is None or store.opened != store.state():
        _let_go()
        store = _kept[path] = Store(path)
    if opened is not None and store.opened != opened:
        raise StoreError(f"{path} has changed since it was opened; open it again")
    return store.sql(query).to_arrow_table()


@atexit.register
def _let_go() -> None:
    for store in [_kept.pop(path) for path in list(_kept)]:
        store.close()


def engine_of(name: str, address: str | None = None) -> Engine:
    """InputError for a name that is none."""
    if name == "ray":
        from .on_ray import RayEngine

        return RayEngine(address)
    if name == "spark":
        from .on_spark import SparkEngine

        return SparkEngine(address)
    raise InputError(f"there is no engine {name!r}: there are ray and spark; without one DuckDB answers in this process")


def open_store(
    path: str | Path,
    *,
    external: bool = False,
    comments: bool = False,
    settings: Mapping[str, str] | None = None,
    engine: str | None = None,
    address: str | None = None,
) -> Store:
    """Open a store for reading. StoreError in one sentence if it is missing, locked, of another version, damaged or no store.

    What lies beside it and cannot be shown is warned of. engine: `ray` or `spark`, to have large groupings counted by the
    cluster at `address`, or by all cores of this machine; spark also answers what cannot be counted so. The other keywords are
    those of `Store`.
    """
    if engine is None and address is not None:
        raise InputError(f"the address {address} is of an engine; say which: ray or spark")
    if engine is None:
        return reader.open_store(path, external=external, comments=comments, settings=settings)
    how: dict[str, Any] = {"external": external, "comments": comments, "settings": settings}
    reader.open_store(path, **how).close()  # what is wrong with it is said before an engine begins
    return SharedStore(path, engine_of(engine, address), **how)
