"""Parquet files of which only the end is on this machine: as long as they are, with their description, and holes for rows.

So whoever asks for their names, lengths, columns and statistics asks them as any other file; who reads rows names them by
`named` or opens them by `opened`, and reads from where they lie. A folder that has such files says so in a file ELSEWHERE:
which, and by what address. Only folders of moescope's own (`home`) are believed.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from .place import Place

ELSEWHERE = "elsewhere.json"
SCHEME = "moescope"
_WHOLE = 1 << 16  # bytes up to which a file is kept whole


def home() -> Path:
    """The folder of what is on this machine of stores elsewhere: MOESCOPE_REMOTE, or in the user's cache."""
    if named := os.environ.get("MOESCOPE_REMOTE"):
        return Path(named).resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(cache) / "moescope" / "remote").resolve()


def inside(path: Path) -> bool:
    """Whether a path is of a store elsewhere."""
    return path.is_relative_to(home())


def named(path: str | Path) -> str:
    """How a query names a file or folder: as it is; or so that rows are read from where they lie (see `reach`)."""
    return f"{SCHEME}://{path}" if inside(Path(path)) else str(path)


def opened(path: Path) -> Any:
    """A file for reading, with all of its rows."""
    found = _elsewhere(path) if inside(path) else None
    return path.open("rb") if found is None else found.open(path.name)


def is_hollow(path: Path) -> bool:
    """Whether the rows of a file are not on this machine."""
    return inside(path) and _elsewhere(path) is not None


def _elsewhere(path: Path) -> Place | None:
    try:
        said = json.loads((path.parent / ELSEWHERE).read_text())
    except FileNotFoundError:
        return None
    return Place(said["address"]) if path.name in said["files"] else None


def worth(size: int, name: str) -> bool:
    """Whether a file is long enough for its rows to be left elsewhere."""
    return name.endswith(".parquet") and size > _WHOLE


def write(path: Path, size: int, end: bytes = b"") -> None:
    """A file of so many bytes that has nothing but its end."""
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - len(end))
        file.write(end)


def end_of(file: Any, size: int) -> bytes:
    """The description at the end of a Parquet file."""
    file.seek(size - 8)
    length = int.from_bytes(file.read(8)[:4], "little") + 8
    file.seek(max(0, size - length))
    return bytes(file.read(length))


def mark(folder: Path, address: str, files: Iterable[str]) -> None:
    """Say that the rows of these files of a folder are elsewhere; the files are hollow from then on."""
    temporary = folder / f"{ELSEWHERE}.tmp"
    temporary.write_text(json.dumps({"address": address, "files": sorted(files)}))
    os.replace(temporary, folder / ELSEWHERE)


def empty(folder: Path, address: str) -> None:
    """Let go of the rows of a folder whose files are at `address`, each in one step; who has one open keeps it."""
    large = {file: file.stat().st_size for file in folder.glob("*.parquet")}
    large = {file: size for file, size in large.items() if worth(size, file.name)}
    for file, size in large.items():
        with file.open("rb") as source:
            write(file.with_suffix(".hollow"), size, end_of(source, size))
    mark(folder, address, [file.name for file in large])
    for file in large:
        os.replace(file.with_suffix(".hollow"), file)


def reach(con: duckdb.DuckDBPyConnection) -> None:
    """Let `con` read what `named` names."""
    from .duckdb_files import Files

    con.register_filesystem(Files(skip_instance_cache=True))
