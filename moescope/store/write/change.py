"""Change a store without anybody seeing half of it: a copy beside it is changed, synced, and renamed over it.

No reader is ever in the way (nobody opens the file itself for writing), and a crash at any instant leaves the old file or the
new one; what it leaves beside them is swept away by the next change. Links are followed, mode and owner kept. Who writes into
the file itself meanwhile is not overwritten: the change is made again, over what he left.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any

import duckdb

from ...errors import StoreError
from ..connect import Known, connect
from ..files.durable import check_locks, exclusive, like, reason, sync
from ..files.paths import attach, plainly, real, roomy, workplace, writable
from ..files.seal import seal, unseal
from ..migrations import VERSION
from ..remote.addresses import check_writable, mirror_of, pull, push
from . import working_copy
from .unfinished_run import PLANNED, UnfinishedRun, parts_folder, unfinished_runs

Change = Callable[[duckdb.DuckDBPyConnection], object]
_TRIES = 3
_numbers = count()
_known: dict[Path, tuple[tuple[Any, ...], "Known"]] = {}  # of files, by their state
_ours: dict[Path, tuple[Any, ...]] = {}  # the state in which this process left a file


def check_target(store: Path) -> None:
    """StoreError if nothing can be written at `store`: it is something else, or it or its folder is not to be written."""
    check_locks()
    path = real(store)
    if path.is_dir():
        raise StoreError(f"{store} is a folder; name a file such as {store / 'run.duckdb'}")
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder {store.parent} to hold {store.name}; make it first")
    roomy(store)
    if path.exists():
        known(store)
    if reason := writable(path):
        raise StoreError(f"cannot write {store}: {reason}; choose one that can be written")
    check_writable(store)


def ensure_store(store: Path) -> None:
    """Make an empty store at `store` unless one is there; StoreError if it is something else."""
    check_target(store)
    if real(store).exists():
        try_clean_up(store)
    else:  # not anew: another process may have begun it meanwhile, and a run in it
        change_store(store, lambda con: None)


def reset_store(store: Path) -> None:
    """Begin the store anew: an empty one in its place, and what was cut off there forgotten. StoreError if a trace runs.

    Runs that are of another store of this name stay where they are.
    """
    uid = known(store).uid
    if [part for part in unfinished_runs(store) if part.alive()]:
        raise StoreError(f"{store} cannot be begun anew while a trace writes into it; wait for it, or name another file")
    change_store(store, lambda con: None, anew=True)
    for part in unfinished_runs(store, kept=True):
        if part.head.get("store") == uid:
            part.remove()
    try_clean_up(store)


def change_store(store: Path, change: Change, anew: bool = False) -> None:
    """Change a store, or with `anew` begin it: copied, changed, renamed over it. StoreError if it cannot be read or written."""
    try:
        with exclusive(store):
            replace(store, change, anew)
    except (OSError, duckdb.Error) as error:
        raise StoreError(f"cannot write {store}: {reason(error)}; choose a folder that can be written") from error


def replace(store: Path, change: Change, anew: bool = False, uid: str | None = None) -> None:
    """As `change_store`, for who holds the right to replace `store`; `change` may read what lies in its folder STORE.parts.

    `uid`: the store that is meant. One that is gone is begun again under it, and another one in its place is left alone.
    """
    path = real(store)
    if why := writable(path):
        raise StoreError(f"cannot write {store}: {why}; choose one that can be written")
    for _ in range(_TRIES):
        pull(path)
        begun = anew or not path.exists()
        there = known(store).uid
        clean_up(store)
        if not begun and uid is not None and there != uid:
            why = f"{store} is another store than the one in which this run began"
            raise StoreError(f"{why}; moescope recover {store} --adopt joins it there")
        if _tried(store, path, change, None if not begun else uid or uuid.uuid4().hex):
            return
    raise StoreError(f"another program writes into {store} again and again; wait for it, and do this once more")


def _tried(store: Path, path: Path, change: Change, begin: str | None) -> bool:
    """One try; False if the file was changed by somebody else meanwhile. `begin`: the identity of a store to begin."""
    temporary, mirror = path.with_name(f"{path.name}.tmp-{os.getpid()}"), mirror_of(path)
    try:
        before = _state(path)
        with workplace(temporary) as place:
            if begin is None:
                _whole(store)
                shutil.copyfile(path, place)
                unseal(place)
            else:
                place.write_bytes(working_copy.empty())
            with plainly(place) as name, closing(working_copy.opened(name, parts_folder(store))) as con:
                con.execute("begin")  # one transaction: each would wait for the disk
                if begin is not None:
                    working_copy.begin(con, begin)
                else:
                    working_copy.ready(con, store, foreign=_ours.get(path) != before)
                change(con)
                con.execute("commit")
                told = Known.of(con, PLANNED, "store")
                same = con.execute("select value from meta where key = 'schema_version'").fetchall() == [(VERSION,)]
                con.execute("checkpoint")
            seal(place)
        like(path, temporary)
        sync(temporary)
        with _held(store, path):
            if _state(path) != before or (mirror is not None and not mirror.push(temporary)):
                return False
            os.replace(temporary, path)
            if same:
                _ours[path] = _state(path)
                _known[path] = _ours[path], told
        sync(path.parent)
        return True
    finally:
        _delete(path.parent.glob(f"{escape(temporary.name)}*"))


def _state(path: Path) -> tuple[Any, ...]:
    """Changes when somebody writes into the file, or puts another in its place; or a log of changes beside it."""
    found: list[Any] = []
    for file in (path, path.with_name(path.name + ".wal")):
        with suppress(FileNotFoundError):
            stat = file.stat()
            found += [file.name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    return tuple(found)


@contextmanager
def _held(store: Path, path: Path) -> Iterator[None]:
    """While this is open, no other program can open the file to write into it. StoreError if one has."""
    if not path.exists():
        yield
        return
    with _keeper(os.getpid()).cursor() as con:
        database = f"held_{next(_numbers)}"
        try:
            attach(con, path, database)
        except duckdb.Error:
            connect(store).close()  # says why
            raise
        try:
            yield
        finally:
            con.execute(f"detach {database}")


@cache
def _keeper(process: int) -> duckdb.DuckDBPyConnection:
    """A database of this process that holds files: to make one takes longer than to hold one."""
    return duckdb.connect()


def try_clean_up(store: Path) -> None:
    """Remove what a crash left beside `store`, if this user may and nobody is changing it."""
    with suppress(OSError, StoreError), exclusive(store, wait=False):
        clean_up(store)


def clean_up(store: Path) -> None:
    """Remove what a crash left beside `store`; for who may replace it. What is in use stays, and what is not moescope's."""
    path, folder = real(store), parts_folder(store)
    _delete(path.parent.glob(f"{escape(path.name)}.tmp-*"))
    if not folder.is_dir() or folder.is_symlink():
        return
    there = known(store)
    with os.scandir(folder) as inside:
        names = [entry.name for entry in inside if entry.is_dir(follow_symlinks=False)]
    for part in [UnfinishedRun(folder / name) for name in names]:
        if part.path.name in there.apart:
            part.settle()
        elif part.path.name in there.joined or part.forgotten():
            part.remove()
    if not any(folder.iterdir()):
        folder.rmdir()
    push(path)


def known(store: Path) -> Known:
    """What a store says of the parts beside it; from memory while the file is as this process left it.

    StoreError as of `connect`.
    """
    path = real(store)
    if not path.exists():
        return Known()
    state = _state(path)
    if _known.get(path, ((), None))[0] != state:
        with connect(store) as con:
            _known[path] = state, Known.of(con, PLANNED)
    return _known[path][1]


def _whole(store: Path) -> None:
    """StoreError if another program left changes beside the file that are not in it yet."""
    if (log := real(store)).with_name(log.name + ".wal").exists():
        raise StoreError(
            f"{store} was changed by another program and not closed ({store.name}.wal is there); open and close it once with "
            "DuckDB"
        )


def _delete(paths: Any) -> None:
    for path in list(paths):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
