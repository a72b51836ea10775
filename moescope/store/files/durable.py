"""Locks, and files that are on the disk when it is said so.

Where the system has no such locks (Windows) stores can be read; writing is refused, and an unfinished run that was copied there
is nobody's.
"""

import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ..remote.hollow import opened
from .paths import real

try:
    import fcntl as _fcntl
except ImportError:
    _fcntl = None  # type: ignore[assignment]
fcntl: Any = _fcntl
SHARED, EXCLUSIVE = 1, 2  # LOCK_SH, LOCK_EX of flock
_UNLOCKED = (
    "stores cannot be written here: this system ({}) lacks the file locks that keep writers apart; read them here, and write "
    "on Linux or macOS"
)


class Lock:
    """An advisory lock on a file or folder, held until closed, collected, or the process ends; raises BlockingIOError.

    kind: SHARED or EXCLUSIVE. StoreError for an exclusive one where the system has no locks.
    """

    def __init__(self, path: Path, kind: int, patience: float = 0.0) -> None:
        self._fd = -1
        if fcntl is None and kind == SHARED:
            return None
        check_locks()
        self._fd = os.open(path, os.O_RDONLY)
        until = time.monotonic() + patience
        while True:
            try:
                return fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    self.close()
                    raise
            time.sleep(0.01)

    def close(self) -> None:
        """Let go."""
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


@contextmanager
def exclusive(store: Path, wait: bool = True) -> Iterator[None]:
    """Hold the right to replace `store`: a lock on its folder, which no reader needs. BlockingIOError without `wait`."""
    check_locks()
    fd = os.open(real(store).parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)


def check_locks() -> None:
    """StoreError where the system has no locks, so that no store can be written."""
    if fcntl is None:
        raise StoreError(_UNLOCKED.format(os.name))


def sync(path: Path) -> None:
    """Force a file or a folder to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new one, never half."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def like(path: Path, temporary: Path) -> None:
    """Give a file that takes the place of `path` its mode, its owner where the system allows it, and its attributes."""
    with suppress(OSError):
        os.chown(temporary, path.stat().st_uid, path.stat().st_gid)
    with suppress(OSError):
        shutil.copystat(path, temporary)
    os.utime(temporary)


def crc(path: Path) -> int:
    """The CRC-32 of a file's content, wherever its rows lie."""
    found = 0
    with opened(path) as file:
        while piece := file.read(1 << 20):
            found = zlib.crc32(piece, found)
    return found


_CAUSES = ("No space left on device", "Permission denied", "Read-only file system", "Disk quota exceeded")


def reason(error: Exception) -> str:
    """What the system or DuckDB says, in one line."""
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    cause = next((words for words in _CAUSES if words in said and words not in said[:200]), "")  # behind a long path
    return f"{cause + ': ' if cause else ''}{said[:200]}" or type(error).__name__
