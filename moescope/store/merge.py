"""Join an unfinished run to its store: a new file beside the old one, synced, then renamed over it.

No reader is ever in the way (nobody opens the file for writing), and a crash at any instant leaves the old file or the new one;
a folder whose run is already in the file is left-over and ignored.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from .. import __version__
from ..errors import StoreError
from ..routing import MAX_WIDTH
from . import routes
from .parts import KEYS, Part, exclusive, sync
from .rollups import add_rollups
from .schema import VERSION, create_tables, create_views

_SPACE = {"next_router": "router"}


def ensure_store(store: Path) -> None:
    """Make an empty store at `store` unless one is there; StoreError if it is something else."""
    if store.is_dir():
        raise StoreError(f"{store} is a folder; name a file such as {store / 'run.duckdb'}")
    if not store.parent.is_dir():
        raise StoreError(f"there is no folder {store.parent} to hold {store.name}; make it first")
    try:
        with exclusive(store):
            if store.exists():
                check_store(store)
            else:
                _replace(store, lambda con: None)
    except OSError as error:
        raise StoreError(f"cannot write {store}: {error.strerror}; choose a folder that can be written") from error


def check_store(store: Path) -> None:
    """StoreError unless `store` is a moescope store of this schema version."""
    connect(store).close()


def connect(store: Path) -> duckdb.DuckDBPyConnection:
    """Open a finished store read-only; StoreError in one sentence if that cannot be."""
    if not store.exists():
        raise StoreError(f"there is no store {store}; make one with: moescope trace MODEL --data DATA --store {store}")
    try:
        con = duckdb.connect(str(store), read_only=True)
    except duckdb.Error as error:
        raise StoreError(_why(store, error)) from error
    found = con.execute("select 1 from information_schema.tables where table_name = 'meta'").fetchall()
    version = con.execute("select value from meta where key = 'schema_version'").fetchall() if found else []
    if not version:
        con.close()
        raise StoreError(f"{store} is a DuckDB file but no moescope store; name another file")
    if version[0][0] != VERSION:
        con.close()
        raise StoreError(
            f"{store} has schema version {version[0][0]} and this moescope {__version__} reads {VERSION}; "
            "use the moescope that wrote it"
        )
    return con


def _why(store: Path, error: Exception) -> str:
    text = str(error)
    if "lock" in text.lower():
        return f"{store} is open for writing in another program (DuckDB says: {text.splitlines()[0]}); close it there"
    if "permission" in text.lower():
        return f"{store} cannot be read: permission denied; check its owner and mode"
    return f"{store} is not a moescope store (DuckDB cannot open it: {text.splitlines()[0][:120]}); name another file"


def merge(store: Path, part: Part, final: Mapping[str, Any]) -> int:
    """Join `part` to `store` with the final columns of its run; gives the run's number. Removes the part."""
    numbers: list[int] = []
    try:
        with exclusive(store):
            _replace(store, lambda con: numbers.append(_insert(con, part, final)))
            shutil.rmtree(part.path, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"joining the run to {store} failed: {error.strerror}; its shards are safe: make room, then run "
                         f"moescope recover {store}") from error  # fmt: skip
    except duckdb.Error as error:
        raise StoreError(f"joining the run to {store} failed: {str(error).splitlines()[0]}; its shards are safe: make room, "
                         f"then run moescope recover {store}") from error  # fmt: skip
    if part.path.parent.is_dir() and not any(part.path.parent.iterdir()):
        part.path.parent.rmdir()
    return numbers[0]


def update(store: Path, change: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
    """Change a finished store: copied, changed, renamed over the old file. StoreError if it cannot be read or written."""
    try:
        with exclusive(store):
            check_store(store)
            _replace(store, change)
    except OSError as error:
        raise StoreError(f"cannot write {store}: {error.strerror}; choose a folder that can be written") from error


def _replace(store: Path, change: Any) -> None:
    """Copy the store (or make a new one), change the copy, rename it over the store."""
    temporary = store.with_name(f"{store.name}.tmp-{os.getpid()}")
    try:
        if store.exists():
            check_store(store)
            shutil.copyfile(store, temporary)
        con = duckdb.connect(str(temporary))
        if not store.exists():
            _begin(con)
        change(con)
        create_views(con)
        con.execute("checkpoint")
        con.close()
        sync(temporary)
        os.replace(temporary, store)
        sync(store.parent)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(temporary.name + ".wal").unlink(missing_ok=True)


def _begin(con: duckdb.DuckDBPyConnection) -> None:
    create_tables(con)
    rows = [("schema_version", VERSION), ("writer", __version__), ("created", datetime.now(UTC).isoformat())]
    con.executemany("insert into meta values (?, ?)", rows)


def _insert(con: duckdb.DuckDBPyConnection, part: Part, final: Mapping[str, Any]) -> int:
    con.execute("begin")
    base = offsets(con, part)
    insert_head(con, part, base, final)
    for table in sorted(part.tables()):
        kind, _, width = table.rpartition("_")
        if kind in ("routes", "decided"):
            routes.create_table(con, int(width), kind)
        con.execute(f"insert into {table} by name {projection(part, table, base)}")
    con.execute("commit")
    con.execute("begin")
    create_views(con)
    count_rows(con, base["run"])
    add_rollups(con, base["run"])
    con.execute("commit")
    return base["run"]


def offsets(con: duckdb.DuckDBPyConnection, part: Part) -> dict[str, int]:
    """What to add to each kind of key of `part`, so that it joins the rows in sight of `con`."""
    if continues := part.head.get("continues"):
        base = {"run": continues["run"], "router": continues["router"], "model": continues["model"]}
    else:
        base = {key: _free(con, f"{key}s", key) for key in ("run", "router")} | {"model": _model(con, part)}
    first = part.head.get("continues", {}).get("next", {})
    return base | {key: _free(con, f"{key}s", key) - first.get(key, 0) for key in ("forward", "sequence", "token")}


def _free(con: duckdb.DuckDBPyConnection, table: str, key: str) -> int:
    return con.execute(f"select coalesce(max({key}) + 1, 0) from {table}").fetchall()[0][0]


def _model(con: duckdb.DuckDBPyConnection, part: Part) -> int:
    model = part.head["model"]
    same = con.execute(
        "select model from models where weights_sha256 = ? and name = ? and dtype is not distinct from ?",
        [model["weights_sha256"], model["name"], model.get("dtype")],
    ).fetchall()
    return same[0][0] if same else _free(con, "models", "model")


def insert_head(con: duckdb.DuckDBPyConnection, part: Part, base: Mapping[str, int], final: Mapping[str, Any]) -> None:
    """The rows of the run, its model, routers and experts."""
    began = {name: value for name, value in part.head["run"].items() if name != "key"}
    run = {**began, **final, "run": base["run"], "model": base["model"]}
    con.execute("delete from runs where run = ?", [base["run"]])
    insert_rows(con, "runs", [run])
    if not con.execute("select 1 from models where model = ?", [base["model"]]).fetchall():
        insert_rows(con, "models", [{**part.head["model"], "model": base["model"]}])
    if "continues" not in part.head:
        move = {"router": base["router"]}
        insert_rows(con, "routers", [_moved(r, move) | {"run": base["run"]} for r in part.head["routers"]])
        insert_rows(con, "experts", [_moved(e, move) for e in part.head["experts"]])


def _moved(row: Mapping[str, Any], move: Mapping[str, int]) -> dict[str, Any]:
    return {key: value + move.get(key, 0) if key in move else value for key, value in row.items()}


def insert_rows(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert dicts by column name; dicts and lists become JSON."""
    for row in rows:
        columns = ", ".join(f'"{name}"' for name in row)
        values = [json.dumps(v, default=str) if isinstance(v, dict | list) else v for v in row.values()]
        con.execute(f"insert into {table} ({columns}) values ({', '.join('?' * len(row))})", values)


def projection(part: Part, table: str, base: Mapping[str, int]) -> str:
    """SQL over the Parquet files of a table with the keys moved by `base`."""
    files = ", ".join("'" + file.replace("'", "''") + "'" for file in part.files(table))
    source = f"read_parquet([{files}], union_by_name = true)"
    names = {name for (name, *_) in duckdb.execute(f"describe from {source}").fetchall()}
    moved = [f"({key} + {base[_SPACE.get(key, key)]})::uinteger as {key}" for key in KEYS if key in names and key != "run"]
    sql = f"select * replace ({', '.join(moved)}) from {source}" if moved else f"from {source}"
    if table == "vocab":
        known = f"vocab v on (v.model = {base['model']} and v.vocab_id = n.vocab_id)"
        return f"select distinct {base['model']} as model, vocab_id, text from ({sql}) n anti join {known}"
    return f"select {base['run']} as run, * from ({sql})" if table in _RUN else sql


_RUN = {"sequences", "tokens", "forwards", "pools", "logits", "decisions_long", "assignments_long", "measures"}
_RUN |= {f"{kind}_{k}" for kind in ("routes", "decided") for k in range(1, MAX_WIDTH + 1)}


def count_rows(con: duckdb.DuckDBPyConnection, run: int) -> None:
    """Fill in the counts of `runs` from the rows."""
    for table in ("forwards", "sequences", "tokens", "decisions", "assignments"):
        con.execute(f"update runs set {table} = (select count(*) from {table} where run = ?) where run = ?", [run, run])
