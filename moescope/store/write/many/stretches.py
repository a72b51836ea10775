"""One run that many processes write: its data in stretches of so many batches, each a shard that any process may make.

A stretch is written under a name of its own and renamed when it is synced, so that it is there whole or not at all; who makes
one that is there already throws his away. Its keys begin where its maker foretold. `Gathering`, one process, gives shards
their places in order: where a stretch's keys begin elsewhere than foretold they are moved, so that the record is the one that
a single process writes. Beside what unfinished_run.py says the folder of the run holds

stretches.json            so many batches make a stretch
stretch-<batches before>/ one that is made, and has no place yet
stretch-<...>.claim       locked by who is at it
"""

import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ....errors import StoreError
from ...files.durable import EXCLUSIVE, Lock, sync, write_atomic
from ...sums.from_shard import Tally
from ..shard import committed
from ..unfinished_run import COUNTED, UnfinishedRun
from ..writer import RunWriter
from .moved_keys import UNNAMED, Move, lay

_NAME = re.compile(r"stretch-(\d{9})")


@dataclass(frozen=True)
class Run:
    """What a maker of stretches must know: the run's folder, how many batches make one, and what was done before the first.

    shards: how many there were then; each stretch becomes the next one.
    """

    folder: Path
    size: int
    begun: dict[str, Any]
    shards: int = 0

    @property
    def done(self) -> int:
        """Batches before the first stretch."""
        return int(self.begun.get("batches", 0))

    def place(self, number: int) -> Path:
        """Where a stretch goes, the first being 0."""
        return self.folder / _name(self.done + number * self.size)

    def has(self, number: int) -> bool:
        """Whether it is made, waiting for its place or in it. StoreError if the run is gone."""
        if self.place(number).is_dir():  # asked first: what gets its place meanwhile is found below
            return True
        if not self.folder.is_dir():
            raise StoreError(f"the run that was to be traced is gone ({self.folder.name}): another process ended it")
        return (self.folder / f"shard-{self.shards + number:06d}").is_dir()

    def claim(self, number: int) -> Lock | None:
        """The right to make a stretch, which goes with this process; None where another has it. OSError without locks."""
        path = self.place(number).with_suffix(".claim")
        path.touch()
        try:
            return Lock(path, EXCLUSIVE)
        except BlockingIOError:
            return None


class _Nobody(Lock):
    """Holds nothing: who makes stretches does not own the run."""

    def __init__(self) -> None:
        self._fd = -1


class StretchWriter(RunWriter):
    """The writing end of who makes stretches; between `begin` and `finish` it is given the rows of one, and commits nothing.

    What it is given before the first `begin` (measures of the model) belongs to the stretch that has no batch before it.
    """

    def __init__(self, head: Mapping[str, Any]) -> None:
        self._head = dict(head)
        self._opening: list[tuple[str, Mapping[str, Any]]] = []
        self._began: dict[str, int] | None = None
        super().__init__(Path(), self._part(Path(os.devnull)), _Nobody())

    def _part(self, path: Path) -> UnfinishedRun:
        part = UnfinishedRun(path)
        part.__dict__["head"] = self._head
        return part

    def begin(self, first: bool, keys: Mapping[str, int]) -> None:
        """The rows that follow are of a stretch whose keys begin at these; `first`: no batch of the run is before it."""
        for sheet in self._sheets.values():
            sheet.cut(0)
        self._tally, self._words = Tally(self._head["routers"], self._head["experts"]), None
        self._began = {key: keys.get(key, 0) for key in COUNTED}
        self.pending, self._shard, self.next, self._unnamed = 0, 0, dict(self._began), False
        self.mark()
        for table, columns in self._opening if first else []:
            super().add(table, columns)

    def add(self, table: str, columns: Mapping[str, Any]) -> None:
        """As ever."""
        if self._began is None:
            self._opening.append((table, columns))
        super().add(table, columns)

    def document(self, sequence: int) -> str:
        """Marked, so that it is moved with the sequence's key."""
        self._unnamed = True
        return f"{UNNAMED}{sequence}"

    def commit(self, progress: Mapping[str, Any]) -> None:
        """Nothing: a stretch is one shard."""

    def finish(self, place: Path, progress: Mapping[str, Any]) -> None:
        """Make the stretch durable at `place`, unless somebody else did. StoreError where the disk refuses."""
        work = place.with_name(f"{place.name}.tmp-{uuid.uuid4().hex}")
        try:
            work.mkdir()
            self.part = self._part(work)
            super().commit({**progress, "began": self._began, "unnamed": self._unnamed})
            with suppress(OSError):  # it is there
                os.rename(work / "shard-000000", place)
            sync(place.parent)
        except OSError as error:
            raise StoreError(
                f"writing to {place.parent} failed: {error.strerror or error}; make room, and go on with --resume"
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


class Gathering(RunWriter):
    """The writer of a run that others make stretches of: gives them their places. `moved`: of so many it moved the keys."""

    moved = 0
    plans = False  # what others write is linked, and they do not know them

    def assign(self, size: int) -> Run:
        """What makers must know; of a run that is gone on with, as many batches make a stretch as before."""
        said = self.part.path / "stretches.json"
        if said.exists():
            size = int(json.loads(said.read_text())["size"])
        else:
            write_atomic(said, json.dumps({"size": size}))
        self.said, self._since = dict(self.part.progress), time.monotonic()
        self._before = self.said.get("resume", {}).get("seconds", 0.0)
        run = Run(self.part.path, size, self.said, self._shard)
        self._clean(run)
        return run

    def seconds(self) -> float:
        """Wall time, that of before an interruption included."""
        return float(self._before + time.monotonic() - self._since)

    def _clean(self, run: Run) -> None:
        """Remove what was left half, and what does not begin where a stretch does now."""
        for path in run.folder.glob("stretch-*"):
            known = _NAME.fullmatch(path.name)
            fits = known is not None and (away := int(known[1]) - run.done) >= 0 and away % run.size == 0
            if path.is_dir() and not fits:
                shutil.rmtree(path, ignore_errors=True)

    def seal(self) -> int:
        """Give all stretches that follow their places; gives how many did."""
        count = 0
        while (stretch := self.part.path / _name(int(self.said.get("batches", 0)))).is_dir():
            self._place(stretch)
            count += 1
        return count

    def _shown(self) -> int:
        return int(self.said.get("resume", {}).get("pictures", 0))

    def _left(self) -> int:
        """Pictures that are still to be kept: a run keeps the first so many, whoever made them."""
        most = (self.part.head["run"].get("capture") or {}).get("pictures")
        return sys.maxsize if most is None else max(int(most) - self._shown(), 0)

    def _place(self, stretch: Path) -> None:
        own = json.loads((stretch / "progress.json").read_text())
        move = Move({key: self.next[key] - own["began"][key] for key in COUNTED}, bool(own["unnamed"]), self._left())
        self.moved += any(move.by.values())
        after = {key: value + move.by[key] if key in move.by else value for key, value in own["next"].items()}
        said = _together(self.said, own, self.seconds())
        with committed(self.store, self.part.path, self._shard) as temporary:
            written = lay(stretch, temporary, own["written"], move, self.part.keys)
            said["resume"]["pictures"] = self._shown() + _rows(temporary / "pictures.parquet")
            (temporary / "progress.json").write_text(json.dumps({**said, "next": after, "written": written}, default=str))
        shutil.rmtree(stretch, ignore_errors=True)
        stretch.with_suffix(".claim").unlink(missing_ok=True)
        self.said, self.next, self._shard = said, after, self._shard + 1
        self.mark()


def _together(before: Mapping[str, Any], own: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What a run says of itself behind a stretch, after so many seconds: how far it is; counts and times of all added up."""
    said = {name: value for name, value in own.items() if name not in ("next", "written", "began", "unnamed", "resume")}
    old, new = before.get("resume", {}), own.get("resume", {})
    resume = {name: old.get(name, 0) + new.get(name, 0) for name in ("steps", "model_seconds", "trace_seconds")}
    resume["seconds"] = seconds
    resume["fired"] = sorted({*old.get("fired", ()), *new.get("fired", ())})
    for name in ("warned", "noted"):
        counts = dict(old.get(name, {}))
        for text, count in new.get(name, {}).items():
            counts[text] = counts.get(text, 0) + count
        resume[name] = counts
    return said | {"resume": resume}


def _rows(file: Path) -> int:
    return int(pq.read_metadata(file).num_rows) if file.exists() else 0


def _name(batches: int) -> str:
    return f"stretch-{batches:09d}"
