"""A run that is being traced, or was cut off: `<store>.parts/<uid>/`, whole shards only.

head.json    the run, its model, routers and experts, with keys that count from 0 within the run
alive        locked for as long as the writing process lives
shard-<n>/   one committed batch of rows, a Parquet file per table, and progress.json; renamed into place when it is synced
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

KEYS = ("run", "forward", "router", "next_router", "sequence", "token", "parent", "model")


def parts_folder(store: Path) -> Path:
    """Where the unfinished runs of `store` lie."""
    return store.with_name(store.name + ".parts")


@dataclass(frozen=True)
class Part:
    """One unfinished run."""

    path: Path

    @cached_property
    def head(self) -> dict[str, Any]:
        """The run, its model, routers and experts."""
        return json.loads((self.path / "head.json").read_text())

    @cached_property
    def shards(self) -> list[Path]:
        """Committed shards in order."""
        return sorted(p for p in self.path.glob("shard-*") if p.suffix != ".tmp")

    @cached_property
    def progress(self) -> dict[str, Any]:
        """How far the run got: `next` (the next free key of each kind), and what the tracer said at its last commit."""
        if not self.shards:
            return dict(self.head.get("continues", {}).get("progress", {}))
        return json.loads((self.shards[-1] / "progress.json").read_text())

    def files(self, table: str) -> list[str]:
        """The Parquet files of a table in order."""
        return [str(shard / f"{table}.parquet") for shard in self.shards if (shard / f"{table}.parquet").exists()]

    def tables(self) -> set[str]:
        """Tables that have rows."""
        return {file.stem for shard in self.shards for file in shard.glob("*.parquet") if not file.stem.endswith("_rollup")}

    def counted(self) -> bool:
        """Whether every shard with routed rows has its kept sums beside them, from the beginning of the run."""
        routed = [shard for shard in self.shards if any(shard.glob("routes_*")) or any(shard.glob("*_long.parquet"))]
        return "continues" not in self.head and all((shard / "decision_rollup.parquet").exists() for shard in routed)

    def alive(self) -> bool:
        """Whether the process that writes it still runs (on this machine)."""
        try:
            probe = Lock(self.path / "alive", fcntl.LOCK_SH)  # shared: probes do not take each other for a writer
        except BlockingIOError:
            return True
        except OSError:
            return False
        probe.close()
        return False

    def lease(self) -> "Lock | None":
        """Keep the files there while they are read, also when the run is joined meanwhile; None if they are going."""
        try:
            return Lock(self.path, fcntl.LOCK_SH)
        except OSError:
            return None

    def remove(self) -> None:
        """Forget it; files that somebody reads stay until `sweep` finds them free."""
        (self.path / "head.json").unlink(missing_ok=True)
        try:
            lock = Lock(self.path, fcntl.LOCK_EX)
        except OSError:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        lock.close()


class Lock:
    """An advisory lock on a file or folder, held until closed, collected, or the process ends; raises BlockingIOError."""

    def __init__(self, path: Path, kind: int, patience: float = 0.0) -> None:
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


def parts(store: Path) -> list[Part]:
    """Parts beside a store, oldest first, their heads read: a run that is joined from now on loses its head first."""
    found: list[Part] = []
    with suppress(FileNotFoundError):  # the folder goes with its last part
        for head in parts_folder(store).glob("*/head.json"):
            part = Part(head.parent)
            with suppress(FileNotFoundError):  # joined, and gone, since the folder was listed
                found += [part] if part.head else []
    return sorted(found, key=lambda part: (str(part.head["run"]["started"]), part.path))


@contextmanager
def exclusive(store: Path, wait: bool = True) -> Iterator[None]:
    """Hold the right to replace `store`: a lock on its folder, which no reader needs. BlockingIOError without `wait`."""
    fd = os.open(store.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)


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
