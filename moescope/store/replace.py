"""Change a store without anybody seeing half of it: a copy beside it is changed, synced, and renamed over it.

No reader is ever in the way (nobody opens the file itself for writing), and a crash at any instant leaves the old file or the
new one; what it leaves beside them is swept away by the next change.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any

import duckdb

from .. import __version__
from ..errors import StoreError
from .connect import check_store, connect, joined
from .parts import Part, exclusive, parts, parts_folder, sync
from .schema import VERSION, create_tables, create_views, quote

Change = Callable[[duckdb.DuckDBPyConnection], object]
_MEMORY = 4 << 30  # bytes, at most
_ROW_GROUP = 983_040  # rows; of eight times DuckDB's own size, a column of packed bits fills its blocks


def ensure_store(store: Path) -> None:
    """Make an empty store at `store` unless one is there; StoreError if it is something else."""
    if store.is_dir():
        raise StoreError(f"{store} is a folder; name a file such as {store / 'run.duckdb'}")
    if not store.parent.is_dir():
        raise StoreError(f"there is no folder {store.parent} to hold {store.name}; make it first")
    if store.exists():
        check_store(store)
        if not os.access(store.parent, os.W_OK):
            raise StoreError(f"cannot write {store}: its folder {store.parent} is read-only; choose one that can be written")
        tidy(store)
    else:
        update(store, lambda con: None, anew=True)


def renew(store: Path) -> None:
    """Begin the store anew: an empty one in its place, and what was cut off there forgotten. StoreError if a trace runs."""
    check_store(store)
    if [part for part in parts(store) if part.alive()]:
        raise StoreError(f"{store} cannot be begun anew while a trace writes into it; wait for it, or name another file")
    update(store, lambda con: None, anew=True)
    for part in parts(store):
        part.remove()
    tidy(store)


def update(store: Path, change: Change, anew: bool = False) -> None:
    """Change a store, or with `anew` begin it: copied, changed, renamed over it. StoreError if it cannot be read or written."""
    try:
        with exclusive(store):
            replace(store, change, anew)
    except (OSError, duckdb.Error) as error:
        raise StoreError(f"cannot write {store}: {reason(error)}; choose a folder that can be written") from error


def reason(error: Exception) -> str:
    """What the system or DuckDB says, in one line."""
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(str(said).split())[:200] or type(error).__name__


def replace(store: Path, change: Change, anew: bool = False) -> None:
    """As `update`, for who holds the right to replace `store`."""
    sweep(store)
    temporary = store.with_name(f"{store.name}.tmp-{os.getpid()}")
    begun = anew or not store.exists()
    try:
        if not begun:
            _whole(store)
            shutil.copyfile(store, temporary)
        con = _opened(temporary)
        try:
            create_tables(con)  # a store of an earlier version of this schema may lack one
            con.execute("begin")  # one transaction: each would wait for the disk
            if begun:
                _begin(con)
            change(con)
            con.execute("commit")
            con.execute("checkpoint")
        finally:
            con.close()
        sync(temporary)
        os.replace(temporary, store)
        sync(store.parent)
    finally:
        _delete(store.parent.glob(f"{escape(temporary.name)}*"))


def _opened(path: Path) -> duckdb.DuckDBPyConnection:
    """`path` for writing: in row groups that leave little of its blocks unused, and with part of the memory, since a model is
    there too; what does not fit is spilled beside it."""
    con = duckdb.connect()
    con.execute("set enable_progress_bar = false")
    memory = min(_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    con.execute(f"set memory_limit = '{memory >> 20} MiB'")
    con.execute(f"set temp_directory = {quote(f'{path}.spill')}")
    con.execute(f"attach {quote(str(path))} as store (row_group_size {_ROW_GROUP})")
    con.execute("use store")
    return con


def tidy(store: Path) -> None:
    """Remove what a crash left beside `store`, if this user may and nobody is changing it."""
    with suppress(OSError, StoreError), exclusive(store, wait=False):
        sweep(store)


def sweep(store: Path) -> None:
    """Remove what a crash left beside `store`; for who holds the right to replace it. What is in use stays."""
    _delete(store.parent.glob(f"{escape(store.name)}.tmp-*"))
    folder = parts_folder(store)
    if not folder.is_dir():
        return
    done = _joined(store)
    for path in list(folder.iterdir()):
        if path.name in done or not (path / "head.json").exists():
            Part(path).remove()
    if not any(folder.iterdir()):
        folder.rmdir()


def _joined(store: Path) -> set[str]:
    if not store.exists():
        return set()
    with connect(store) as con:
        return joined(con)


def _whole(store: Path) -> None:
    """StoreError if another program left changes beside the file that are not in it yet."""
    check_store(store)
    if store.with_name(store.name + ".wal").exists():
        raise StoreError(
            f"{store} was changed by another program and not closed ({store.name}.wal is there); open and close it once with "
            "DuckDB"
        )


def _begin(con: duckdb.DuckDBPyConnection) -> None:
    rows = [("schema_version", VERSION), ("writer", __version__), ("created", datetime.now(UTC).isoformat())]
    con.executemany("insert into meta values (?, ?)", rows)
    create_views(con)


def _delete(paths: Any) -> None:
    for path in list(paths):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
