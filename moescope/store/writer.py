"""Write one run: rows gather in memory, become a shard at each commit, and one DuckDB file at the end."""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StoreError
from .merge import ensure_store, merge
from .parts import Part, parts_folder, sync, write_atomic

Columns = Mapping[str, Any]


class RunWriter:
    """The writing end of one run.

    Keys (`forward`, `sequence`, `token`, `router`) count from 0 within the run; they are moved to free numbers when the run
    joins its store. Raises StoreError in one sentence when the disk or the store refuses; committed shards stay good.
    """

    def __init__(self, store: Path, part: Part) -> None:
        self.store, self.part = store, part
        self._alive = os.open(part.path / "alive", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._tables: dict[str, list[pa.Table]] = {}
        self._shard = int(part.shards[-1].name[6:]) + 1 if part.shards else 0
        self.next: dict[str, int] = {"forward": 0, "sequence": 0, "token": 0} | part.progress.get("next", {})
        self.pending = 0

    @classmethod
    def create(cls, store: str | Path, head: Mapping[str, Any]) -> "RunWriter":
        """Begin a run; `head` has `run`, `model` (dicts), `routers`, `experts` (lists of dicts), as in the schema."""
        store = Path(store)
        ensure_store(store)
        uid = uuid.uuid4().hex[:12]
        head = {**head, "run": {**head["run"], "run": 0, "uid": head["run"].get("uid", uid), "status": "running"}}
        path = parts_folder(store) / uid
        try:
            path.mkdir(parents=True)
            write_atomic(path / "head.json", json.dumps(head, default=str))
        except OSError as error:
            raise StoreError(f"cannot write beside {store}: {error.strerror}; choose a folder that can be written") from error
        return cls(store, Part(path))

    @classmethod
    def resume(cls, store: str | Path, part: Part) -> "RunWriter":
        """Go on with a run whose process died; what was not committed is thrown away."""
        if part.alive():
            raise StoreError(f"run {part.head['run']['uid']} of {store} is still being traced by another process; wait for it")
        for rest in part.path.glob("*.tmp"):
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
        return cls(Path(store), part)

    def add(self, table: str, columns: Columns) -> None:
        """Add rows to `table`; `columns` are equally long arrays, or single values that hold for all rows."""
        length = next((len(c) for c in columns.values() if _is_column(c)), 1)
        if length == 0:
            return
        arrays = {name: _array(value, length) for name, value in columns.items()}
        self._tables.setdefault(table, []).append(pa.table(arrays))
        self.pending += length if table.startswith(("routes_", "assignments_long")) else 0

    def take(self, key: str, count: int) -> int:
        """Reserve `count` keys of a kind; gives the first."""
        first = self.next[key]
        self.next[key] = first + count
        return first

    def commit(self, progress: Mapping[str, Any]) -> None:
        """Make everything added so far durable, as one shard; all of it or nothing."""
        shard = self.part.path / f"shard-{self._shard:06d}"
        temporary = shard.with_suffix(".tmp")
        try:
            temporary.mkdir(exist_ok=True)
            for table, pieces in self._tables.items():
                _write(temporary / f"{table}.parquet", pa.concat_tables(pieces, promote_options="permissive"))
            (temporary / "progress.json").write_text(json.dumps({**progress, "next": self.next}, default=str))
            sync(temporary / "progress.json")
            sync(temporary)
            os.rename(temporary, shard)
            sync(self.part.path)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StoreError(
                f"writing to {self.store} failed: {error.strerror or error}; what was committed before is safe in "
                f"{self.part.path.name}: make room and go on with --resume"
            ) from error
        self._tables, self.pending, self._shard = {}, 0, self._shard + 1

    def close(self, run: Mapping[str, Any], progress: Mapping[str, Any]) -> int:
        """Commit the rest, join the run to the store with the final columns of `runs`, and give its number there."""
        if self._tables:
            self.commit(progress)
        number = merge(self.store, Part(self.part.path), {**run, "progress": {**progress, "next": self.next}})
        self.release()
        return number

    def release(self) -> None:
        """Let go of the run without joining it; it can be resumed."""
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1

    def discard(self) -> None:
        """Forget the run and everything committed for it."""
        self.release()
        shutil.rmtree(self.part.path, ignore_errors=True)


def _is_column(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | pa.Array | pa.ChunkedArray)


def _array(value: Any, length: int) -> pa.Array | pa.ChunkedArray:
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value
    return pa.array(value) if _is_column(value) else pa.repeat(pa.scalar(value), length)


def _write(path: Path, table: pa.Table) -> None:
    """Parquet that DuckDB, Spark and pandas read: zstd; routed rows as differences (keys, experts) and split bytes (floats)."""
    options: dict[str, Any] = {"use_dictionary": True}
    if path.stem.startswith(("routes_", "decided_")):
        encodings = {
            f.name: "BYTE_STREAM_SPLIT" if pa.types.is_floating(f.type) else "DELTA_BINARY_PACKED" for f in table.schema
        }
        options = {
            "use_dictionary": False,
            "column_encoding": encodings,
            "write_statistics": ["forward", "router", "token"],
        }
    pq.write_table(table, path, compression="zstd", compression_level=1, row_group_size=1 << 20, store_schema=False, **options)
    sync(path)
