"""A run that is being traced, or was cut off: `<store>.parts/<uid>/`, whole shards only.

head.json    the run, its model, routers and experts, with keys that count from 0 within the run
alive        locked for as long as the writing process lives
shard-<n>/   one committed batch of rows, a Parquet file per table, and progress.json; renamed into place when it is synced
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

KEYS = ("run", "forward", "router", "next_router", "sequence", "token", "model")


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
            return {"next": dict(self.head.get("continues", {}).get("next", {}))}
        return json.loads((self.shards[-1] / "progress.json").read_text())

    def files(self, table: str) -> list[str]:
        """The Parquet files of a table in order."""
        return [str(shard / f"{table}.parquet") for shard in self.shards if (shard / f"{table}.parquet").exists()]

    def tables(self) -> set[str]:
        """Tables that have rows."""
        return {file.stem for shard in self.shards for file in shard.glob("*.parquet")}

    def alive(self) -> bool:
        """Whether the process that writes it still runs (on this machine)."""
        try:
            fd = os.open(self.path / "alive", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)


def parts(store: Path) -> list[Part]:
    """Unfinished runs of a store, oldest first."""
    heads = parts_folder(store).glob("*/head.json")
    return sorted((Part(head.parent) for head in heads), key=lambda part: part.head["run"]["started"])


@contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Hold the right to replace `store`: a lock on its folder, which no reader takes."""
    fd = os.open(store.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
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
