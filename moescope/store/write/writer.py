"""Write one run: rows gather in memory, become a shard at each commit, and one DuckDB file at the end."""

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StoreError
from .. import column_fit
from ..files.durable import EXCLUSIVE, Lock, crc, exclusive, sync, write_atomic
from ..physical.column_buffer import ColumnBuffer
from ..physical.lossless_encoding import pack
from ..physical.tables import is_routed
from ..remote.addresses import local
from ..sums.from_shard import Tally
from .apart import large
from .change import ensure_store, known, try_clean_up
from .join import join_run
from .placed import check_room, placed
from .projection import says_run
from .resume import head_of
from .shard import committed
from .unfinished_run import UnfinishedRun, parts_folder, unfinished_runs
from .vocabulary import counters

Columns = Mapping[str, Any]
_RUNS = {"run", "forward", "router", "iteration", "unit"}  # long runs of one value
_SKIPPED_BY = ("run", "forward", "router", "token", "sequence")  # keys that say which row groups, and files, have what


class RunWriter:
    """The writing end of one run.

    Keys (`forward`, `sequence`, `token`, `router`) count from 0 within the run; they are moved to free numbers when the run
    joins its store. Raises StoreError in one sentence when the disk or the store refuses; committed shards stay good.
    """

    plans = True  # keys of the store, in which they are written (placed.py)

    def __init__(self, store: Path, part: UnfinishedRun, lock: Lock) -> None:
        self.store, self.part, self._alive = store, part, lock
        self._sheets: dict[str, ColumnBuffer] = {}
        self._tally = Tally(part.head["routers"], part.head["experts"])
        self._words = counters(part)
        self._shard = int(part.shards[-1].name[6:]) + 1 if part.shards else 0
        self.next: dict[str, int] = {"forward": 0, "sequence": 0, "token": 0} | part.progress.get("next", {})
        self._whole: tuple[dict[str, int], dict[str, int]] = ({}, dict(self.next))
        self.pending = 0
        self._counted = ("routes_", "assignments_long") if part.head["routers"] else ("tokens",)

    @classmethod
    def create(cls, store: str | Path, head: Mapping[str, Any]) -> "RunWriter":
        """Begin a run; `head` has `run`, `model` (dicts), `routers`, `experts` (lists of dicts), as in the schema.

        InputError if one of their values does not fit its column.
        """
        store, uid = local(store), uuid.uuid4().hex[:12]
        run = {**head["run"], "run": 0, "uid": head["run"].get("uid", uid), "status": "running"}
        _check({**head, "run": run})
        large()
        ensure_store(store)
        try:
            with exclusive(store):
                return cls._begin(store, uid, {**head, "run": run})
        except OSError as error:
            raise StoreError(f"cannot write beside {store}: {error.strerror}; choose a folder that can be written") from error

    @classmethod
    def _begin(cls, store: Path, name: str, head: Mapping[str, Any]) -> "RunWriter":
        """A new part; its head comes last, so that nobody sees it before it is locked."""
        there = known(store)
        keys = dict(there.free) if cls.plans and "continues" not in head else {}
        head = {"keys": keys, **column_fit.plain(head), "store": there.uid}
        path = parts_folder(store) / name
        path.mkdir(parents=True)
        try:
            (path / "alive").touch()
            lock = Lock(path / "alive", EXCLUSIVE)
            write_atomic(path / "head.json", json.dumps(head, default=str))
            sync(path.parent)
            return cls(store, UnfinishedRun(path), lock)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise

    @classmethod
    def resume(cls, store: str | Path, part: UnfinishedRun) -> "RunWriter":
        """Go on with a run whose process died; what was not committed is thrown away. StoreError if it is still written.

        What comes behind a shard that is lost or damaged is moved aside, and done again.
        """
        try:
            lock = Lock(part.path / "alive", EXCLUSIVE, patience=1.0)
        except BlockingIOError as error:
            uid = part.head["run"]["uid"]
            raise StoreError(f"run {uid} of {store} is still being traced by another process; wait for it") from error
        except OSError as error:
            raise StoreError(f"the run to go on with is gone from {store}: {error.strerror}; look at moescope info") from error
        for rest in part.path.glob("*.tmp"):
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
        whole = UnfinishedRun(part.path)
        whole.first(whole.whole(deep=True)[0]).set_aside()
        return cls(local(store), UnfinishedRun(part.path), lock)

    @classmethod
    def reopen(cls, store: str | Path, run: int) -> "RunWriter":
        """Go on with a run that was joined to its store as `interrupted`. StoreError if another process does already."""
        store = local(store)
        try:
            with exclusive(store):
                head = head_of(store, run)
                if [part for part in unfinished_runs(store) if part.head["run"]["uid"] == head["run"]["uid"]]:
                    raise StoreError(f"run {run} of {store} is being gone on with by another process; wait for it")
                return cls._begin(store, uuid.uuid4().hex[:12], head)
        except OSError as error:
            raise StoreError(f"cannot write beside {store}: {error.strerror}; choose a folder that can be written") from error

    def add(self, table: str, columns: Columns) -> None:
        """Add rows to `table`; `columns` are equally long arrays, or single values that hold for all rows."""
        length = self._sheets.setdefault(table, ColumnBuffer()).add(columns)
        self.pending += length if table.startswith(self._counted) else 0

    def take(self, key: str, count: int) -> int:
        """Reserve `count` keys of a kind; gives the first."""
        first = self.next[key]
        self.next[key] = first + count
        return first

    def document(self, sequence: int) -> str:
        """What a document is called that has no name: by the key of its sequence."""
        return f"{sequence}"

    def mark(self) -> None:
        """What was added so far is whole; `rollback` comes back to here."""
        self._whole = {table: sheet.length for table, sheet in self._sheets.items()}, dict(self.next)

    def rollback(self) -> None:
        """Forget what was added since the last mark or commit."""
        lengths, self.next = self._whole[0], dict(self._whole[1])
        for table, sheet in self._sheets.items():
            sheet.cut(lengths.get(table, 0))

    def commit(self, progress: Mapping[str, Any]) -> None:
        """Make everything added so far durable, as one shard; all of it or nothing."""
        check_room(self.store, self.part.keys, self.next)
        with committed(self.store, self.part.path, self._shard) as temporary:
            tables = {table: _fitting(table, sheet.table()) for table, sheet in self._sheets.items() if sheet.length}
            for table, rows in (tables | self._tally.of(tables)).items():
                own = placed(pack(rows) if is_routed(table) else rows, self.part.keys, says_run(table))
                write_rows(temporary / f"{table}.parquet", own)
            written = {file.name: (file.stat().st_size, crc(file)) for file in temporary.glob("*.parquet")}
            said = {**column_fit.plain(progress), "next": self.next, "written": written}
            (temporary / "progress.json").write_text(json.dumps(said, default=str))
        if self._words is not None:
            self._words.add(self._tally.rows, tables.get("tokens"))
        self.pending, self._shard = 0, self._shard + 1
        for sheet in self._sheets.values():
            sheet.cut(0)
        self._whole = {}, dict(self.next)

    def close(self, run: Mapping[str, Any], progress: Mapping[str, Any]) -> int:
        """Commit the rest, join the run to the store with the final columns of `runs`, and give its number there.

        If that fails the run is let go of, and can be resumed or recovered.
        """
        try:
            if any(sheet.length for sheet in self._sheets.values()):
                self.commit(progress)
            final = {**run, "progress": {**progress, "next": self.next}}
            column_fit.row("runs", final)
            return join_run(self.store, self._everything(), final, self._words)
        finally:
            self.release()

    def _everything(self) -> UnfinishedRun:
        """The run with all shards that were written. StoreError if one is lost, or not as it was written."""
        part = UnfinishedRun(self.part.path)
        whole, fault = part.whole(deep=True)
        if whole == self._shard and fault is None:
            return part
        raise StoreError(
            f"run {self.part.path.name} is not joined to {self.store}: of its {self._shard} committed shards only the first "
            f"{whole} are as they were written ({fault or 'the rest is gone'}); trace again with --resume, or keep those with "
            f"moescope recover {self.store}"
        )

    def release(self) -> None:
        """Let go of the run without joining it; it can be resumed."""
        self._alive.close()

    def discard(self) -> None:
        """Forget the run and everything committed for it."""
        self.part.remove()
        self.release()
        try_clean_up(self.store)


def _check(head: Mapping[str, Any]) -> None:
    """InputError unless everything that a run says of itself can go into the store."""
    column_fit.row("runs", {name: value for name, value in head["run"].items() if name != "key"})
    column_fit.row("models", head["model"])
    for table in ("routers", "experts"):
        for row in head[table]:
            column_fit.row(table, row)


def _fitting(table: str, rows: pa.Table) -> pa.Table:
    return rows if is_routed(table) else column_fit.rows(table, rows)


def write_rows(path: Path, table: pa.Table) -> None:
    """Parquet that DuckDB, Spark and pandas read: whole numbers as differences, floats by bytes, long runs and words packed."""
    schema = table.schema
    whole = [f.name for f in schema if pa.types.is_integer(f.type) and f.name not in _RUNS]
    real = [f.name for f in schema if pa.types.is_floating(f.type)]
    words = [f.name for f in schema if pa.types.is_string(f.type)]
    full = [pa.field(f.name, f.type, c.null_count > 0 or pa.types.is_nested(f.type)) for f, c in zip(schema, table.columns)]
    pq.write_table(
        table.cast(pa.schema(full)),  # where nothing is null, nobody writes so for every row
        path,
        row_group_size=1 << 20,
        store_schema=False,
        use_dictionary=words,
        column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED") | dict.fromkeys(real, "BYTE_STREAM_SPLIT"),
        compression={name: "none" if name in whole else "lz4" for name in schema.names},
        write_statistics=[name for name in _SKIPPED_BY if name in schema.names],
    )
    sync(path)
