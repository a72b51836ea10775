"""The user's paths: taken as they are, whatever a library would read into them.

DuckDB takes `*?[` for patterns, `name=value` for columns, `s3:` for a protocol and `~` for a home; it is told here not to. A
path goes to it whole (from the root on, so that no beginning means anything); shards with their signs of patterns escaped, and
a database by a plain name.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from ...errors import StoreError
from ..remote.hollow import inside, named, reach
from ..schema import quote

_LONGEST = 255  # bytes of a name on usual file systems
_ROOM = 24  # of them, for what lies beside a store: .parts, .tmp-<process>.spill


def real(store: str | Path) -> Path:
    """Where `store` lies, from the root on, links followed. StoreError for a path that no DuckDB file can have."""
    store = Path(store)
    try:
        text = str(store).encode()
        if b"\0" in text:
            raise StoreError(f"{str(store)!r} has a NUL in it, which no file's name can have; name another file")
        path = store.resolve()
        path.exists()  # a name that is too long, or a folder that is closed to this user
        return path
    except UnicodeEncodeError as error:
        raise StoreError(f"{str(store)!r} is not UTF-8, which DuckDB needs of a path; rename it") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links
        why = getattr(error, "strerror", None) or "its links lead in a circle"
        raise StoreError(f"{store} cannot be looked at: {why}; name another file") from error


@contextmanager
def plainly(path: Path) -> Iterator[Path]:
    """`path` by a name that DuckDB reads nothing into when it opens or makes it: where its own has other than letters and
    digits, by a link elsewhere. (It takes a backslash for a slash, and who knows what next.)"""
    if re.fullmatch(r"[\w./ -]+", str(path)):
        yield path
        return
    with TemporaryDirectory(prefix="moescope-") as folder:
        link, log = Path(folder) / "store.duckdb", path.with_name(path.name + ".wal")
        link.symlink_to(path)
        if log.exists():
            link.with_name(link.name + ".wal").symlink_to(log)
        yield link


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Where a database that will lie at `path` is written: there; or, where the path has a `?`, at which DuckDB cuts it to name
    its log, among the system's temporary files, whence it is moved at the end."""
    if "?" not in str(path):
        yield path
        return
    with TemporaryDirectory(prefix="moescope-") as folder:
        yield (place := Path(folder) / "store.duckdb")
        shutil.move(place, path)


def attach(con: duckdb.DuckDBPyConnection, path: Path, database: str = "base") -> None:
    """Attach the file at `path` to `con` as `database`, read-only."""
    with plainly(path) as name:
        con.execute(f"attach {quote(str(name))} as {database} (read_only, type duckdb)")


def roomy(store: Path) -> None:
    """StoreError if the name leaves no room for the names beside it."""
    if (over := len(os.fsencode(real(store).name)) + _ROOM - _LONGEST) > 0:
        raise StoreError(f"the name {store.name[:40]}… is {over} bytes too long for a store; choose a shorter one")


def writable(path: Path) -> str | None:
    """Why a file may not be written or replaced, in words; None if it may. By its mode, also for root, who may all."""
    for what, there in (("it", path), (f"its folder {path.parent}", path.parent)):
        if not there.exists():
            continue
        stat = there.stat()
        if not stat.st_mode & (0o200 if stat.st_uid == os.geteuid() else 0o222):
            return f"{what} is write-protected (mode {stat.st_mode & 0o7777:04o})"
        if not os.access(there, os.W_OK):
            return f"{what} is read-only for this user"
    return None


def literals(texts: Iterable[str | Path]) -> str:
    """Texts as an SQL list."""
    return f"[{', '.join(quote(str(text)) for text in texts)}]"


def parquet(files: Sequence[str | Path]) -> str:
    """SQL for the rows of exactly these files, by the names of their columns, and for nothing that their paths may say."""
    return rows_of(literals(escape(named(file)) for file in files), alike=False)


def rows_of(files: str, alike: bool) -> str:
    """The same of an SQL list of patterns; where all have the same columns (`alike`), only those that are asked are opened."""
    union = "false" if alike else "true"
    return (
        f"read_parquet({files}, union_by_name = {union}, hive_partitioning = false, filename = false, file_row_number = false)"
    )


def confine(con: duckdb.DuckDBPyConnection, folders: Iterable[Path] = (), files: Iterable[Path] = ()) -> None:
    """From now on `con` reaches what it has attached, these folders and files, and nothing else: no file, no network.

    Neither do variables of the Python program come into a query by their names.
    """
    folders = list(folders)
    if any(inside(folder) for folder in folders):
        reach(con)
    for name, paths in (("allowed_directories", folders), ("allowed_paths", files)):
        both = {form for path in paths for called in (str(path), named(path)) for form in (called, escape(called))}
        con.execute(f"set {name} = {literals(sorted(both))}")
    for name in ("autoinstall_known_extensions", "autoload_known_extensions", "python_enable_replacements"):
        con.execute(f"set {name} = false")
    con.execute("set enable_external_access = false")
