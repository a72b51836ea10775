"""What DuckDB reads of stores elsewhere: files of this machine, or the rows that they have elsewhere."""

from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, local
from typing import Any

from fsspec import AbstractFileSystem

from .hollow import SCHEME, opened


class Files(AbstractFileSystem):  # type: ignore[misc]
    """Names are `moescope://` and a path of this machine. Nothing can be written."""

    protocol = SCHEME

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix(f"{SCHEME}://")

    def glob(self, path: str, **_: Any) -> list[str]:
        """The one file that a pattern of ours names: it has nothing but signs that are escaped."""
        plain = self._strip_protocol(path)
        for sign in "*?[":
            plain = plain.replace(f"[{sign}]", sign)
        return [f"{SCHEME}://{plain}"] if Path(plain).is_file() else []

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Its length and time."""
        stat = Path(self._strip_protocol(path)).stat()
        return {"name": path, "size": stat.st_size, "type": "file", "mtime": stat.st_mtime}

    def modified(self, path: str) -> datetime:
        """When it changed."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """For reading."""
        if mode != "rb":
            raise PermissionError("a store elsewhere is not written by queries")
        return _Held(opened(Path(self._strip_protocol(path))))


class _Held:
    """An open file of which each thread has a place of its own: DuckDB's threads share it, and each seeks before it reads.

    It is closed with the last who holds it: DuckDB lets go of files without closing them.
    """

    def __init__(self, file: Any) -> None:
        self._file, self._lock, self._own = file, Lock(), local()

    def seek(self, place: int) -> int:
        """Go to a place of the file; gives it."""
        self._own.place = place
        return place

    def tell(self) -> int:
        """Where this thread is."""
        return getattr(self._own, "place", 0)

    def read(self, size: int = -1) -> bytes:
        """So many bytes from there on; all, if negative."""
        with self._lock:
            self._file.seek(self.tell())
            found = bytes(self._file.read(size))
        self.seek(self.tell() + len(found))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __del__(self) -> None:
        self._file.close()
