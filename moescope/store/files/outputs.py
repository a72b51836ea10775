"""Files that a command leaves behind: written beside their place and renamed into it, never over what somebody may need."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...errors import InputError
from .durable import sync
from .paths import real, writable
from .seal import looks_like_a_store


@contextmanager
def output(path: Path, overwrite: bool = False, ours: bytes | None = None) -> Iterator[BinaryIO]:
    """A file to write into, which takes its place at `path` when the block ends well; else nothing is changed.

    InputError as of `check_output`, before the block and again after it.
    """
    check_output(path, overwrite, ours)
    place = real(path)
    temporary = place.with_name(f".{place.name[:200]}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        sync(temporary)
        check_output(path, overwrite, ours)
        if place.exists():
            os.chmod(temporary, place.stat().st_mode & 0o7777)
        os.replace(temporary, place)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose a file and folder that can be written"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: Path, overwrite: bool = False, ours: bytes | None = None) -> None:
    """InputError if nothing can, or should, be written at `path`.

    Never a store or any other DuckDB file, what belongs to one, a folder, a device or a pipe; a file that is there only with
    `overwrite`, or if the words `ours` are near its beginning, for then moescope made it.
    """
    place = real(path)
    if why := _refused(place):
        raise InputError(f"{path} {why}; name another file")
    if not place.parent.is_dir():
        raise InputError(f"there is no folder {place.parent} to hold {place.name}; make it first")
    if place.exists() and not overwrite and not (ours and ours in _beginning(place)):
        raise InputError(f"{path} is there already; name another file, or say --overwrite")
    if why := writable(place):
        raise InputError(f"cannot write {path}: {why}; name another file")


def _refused(place: Path) -> str | None:
    if place.is_dir():
        return "is a folder"
    if os.path.lexists(place) and not place.is_file():
        return "is a device or a pipe, and no file (with > its shell can write there)"
    if looks_like_a_store(place):
        return "is a DuckDB file, over which moescope writes no result"
    if place.suffix == ".wal" and looks_like_a_store(place.with_suffix("")):
        return f"would be taken for changes to {place.with_suffix('').name}"
    for folder in (place, *place.parents):
        if folder.suffix == ".parts" and (folder.with_suffix("").is_file() or any(folder.glob("*/head.json"))):
            return f"lies where the unfinished runs of {folder.with_suffix('').name} lie"
    return None


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""
