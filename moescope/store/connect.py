"""Open a finished store read-only and confined, or say in one sentence why that cannot be."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb

from .. import __version__
from ..errors import StoreError
from ..memory import room
from .files.lock_holders import held
from .files.paths import attach, confine, real
from .files.seal import looks_like_a_store
from .migrations import readable
from .schema import HERE, quote
from .trust import schema_version, tables_of

_SPILL = 8 << 30  # bytes


def connect(
    store: Path, reach: Iterable[Path] = (), external: bool = False, settings: Mapping[str, str] | None = None
) -> duckdb.DuckDBPyConnection:
    """A database in memory that has `store` attached as `base`, read-only. StoreError if that cannot be.

    Attached, because a second `duckdb.connect` to one path shares the first one's file, even when that was replaced since.
    Confined to it and the folders `reach`, with DuckDB's `settings` fixed, unless `external`; nothing in a stranger's file is
    run.
    """
    path = _file(store)
    con = duckdb.connect(config=_bounds())
    try:
        attach(con, path)
        con.execute("set parquet_metadata_cache = true")  # of files that never change
        for name, value in (settings or {}).items():
            con.execute(f"set {name} = {quote(value)}")
        if not external:
            confine(con, folders=reach)
            con.execute("set lock_configuration = true")
        if (version := schema_version(con)) not in readable():
            raise StoreError(_which(store, version))
        tables_of(con, store, version)
    except duckdb.Error as error:
        con.close()
        raise StoreError(_why(store, error)) from error
    except BaseException:
        con.close()
        raise
    return con


def _bounds() -> dict[str, Any]:
    """A question may fill half of the memory, and some disk among temporary files instead of in the working folder."""
    spill = Path(tempfile.gettempdir()) / f"moescope-{os.getpid()}"
    return {
        "memory_limit": f"{room() >> 20} MiB",
        "temp_directory": str(spill),
        "max_temp_directory_size": f"{_SPILL >> 20} MiB",
    }


def check_store(store: Path) -> None:
    """StoreError unless `store` is a moescope store of this schema version."""
    connect(store).close()


def joined(con: duckdb.DuckDBPyConnection, database: str = "base") -> set[str]:
    """Names of the parts whose rows are in the file that `con` has attached."""
    return {name for (name,) in con.execute(f"select value from {database}.main.meta where key = 'joined'").fetchall()}


def lying_apart(con: duckdb.DuckDBPyConnection, database: str = "base") -> set[str]:
    """Names of the parts that this file describes, and whose rows lie there to stay."""
    there = con.execute("select 1 from duckdb_tables() where database_name = ? and table_name = 'apart'", [database]).fetchall()
    return {name for (name,) in con.execute(f"select distinct part from {database}.main.apart").fetchall()} if there else set()


def free(con: duckdb.DuckDBPyConnection, key: str, database: str = "base") -> int:
    """The first free number of a kind of key in an attached file, by its rows and what it says of those apart: these are not
    read."""
    there = {
        name for (name,) in con.execute("select table_name from duckdb_tables() where database_name = ?", [database]).fetchall()
    }
    table = next((name for name in (f"{key}s", f"{key}s{HERE}") if name in there), None)
    taken = ["select 0 as free"] + ([f"select max({key}) + 1 from {database}.main.{table}"] if table else [])
    if "apart" in there:
        taken.append(f"select max((ends->>'{key}')::ubigint) from {database}.main.apart")
    return con.execute(f"select max(free)::bigint from ({' union all '.join(taken)})").fetchall()[0][0]


def identity(con: duckdb.DuckDBPyConnection, database: str = "base") -> str | None:
    """What tells the store that `con` has attached from another one of its name; None for a store of before there was that."""
    found = con.execute(f"select value from {database}.main.meta where key = 'uid'").fetchall()
    return found[0][0] if found else None


class Known(NamedTuple):
    """What a store says of the parts beside it: names of those whose rows are in it and of those that stay; its identity; the
    first free key of each kind."""

    joined: frozenset[str] = frozenset()
    uid: str | None = None
    apart: frozenset[str] = frozenset()
    free: Mapping[str, int] = MappingProxyType({})

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, keys: Iterable[str], database: str = "base") -> "Known":
        """As an attached file says it; of these kinds of keys."""
        said = frozenset(joined(con, database)), identity(con, database), frozenset(lying_apart(con, database))
        return cls(*said, {key: free(con, key, database) for key in keys})


def identity_of(store: Path) -> str | None:
    """The same, of the store at a path."""
    with connect(store) as con:
        return identity(con)


def _file(store: Path) -> Path:
    path = real(store)
    try:
        if not path.exists():
            raise StoreError(_missing(store, path))
        if not path.is_file():
            kind = "folder" if path.is_dir() else "device or pipe"
            raise StoreError(f"{store} is not a moescope store but a {kind}; name the file")
    except OSError as error:
        raise StoreError(f"{store} cannot be read: {error.strerror}; check its owner and mode") from error
    return path


def _missing(store: Path, path: Path) -> str:
    beside = path.with_name(path.name + ".parts")
    if any(beside.glob("*/head.json")) or any(beside.glob("*/kept.json")):
        return (
            f"there is no store {store}, but runs of one lie in {path.name}.parts; moescope recover {store} --adopt joins them "
            "to a new one"
        )
    return f"there is no store {store}; make one with: moescope trace MODEL --data DATA --store {store}"


def _which(store: Path, version: str | None) -> str:
    if version is None:
        return f"{store} is a DuckDB file but no moescope store; name another file"
    return (
        f"{store} has schema version {version} and this moescope {__version__} reads {readable()[0]} to {readable()[-1]}; use "
        "the moescope that wrote it"
    )


def _why(store: Path, error: duckdb.Error) -> str:
    text, holder = " ".join(str(error).split()), held(store)
    if holder == "here":
        return f"{store} is open for writing in this program; close that connection first"
    if holder == "elsewhere":
        return f"{store} is open for writing in another program (DuckDB says: {text[:200]}); close it there"
    if not os.access(store, os.R_OK):
        return f"{store} cannot be read: permission denied; check its owner and mode"
    if looks_like_a_store(real(store)):
        return f"{store} is damaged (DuckDB: {text[:160]}); moescope verify {store} says what can still be read"
    if holder == "unknown" and isinstance(error, duckdb.IOException):
        return f"{store} is open for writing in another program, or no moescope store (DuckDB says: {text[:200]}); look which"
    return f"{store} is not a moescope store (DuckDB cannot open it: {text[:120]}); name another file"
