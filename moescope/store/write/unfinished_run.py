"""A run that is being traced, or was cut off: `<store>.parts/<uid>/`, whole shards only.

head.json    the run, its model, routers and experts, with keys that count from 0 within the run, and the store it belongs to
alive        locked for as long as the writing process lives
shard-<n>/   one committed batch of rows, a Parquet file per table, and progress.json, which says what was written; renamed
             into place when it is synced
"""

import json
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..files.durable import EXCLUSIVE, SHARED, Lock, crc
from ..files.paths import real
from ..physical.tables import is_routed
from ..remote.addresses import mirror_of
from ..remote.hollow import is_hollow
from ..schema import tables

_HEAD = {"run": dict, "model": dict, "routers": list, "experts": list}
_FORGOTTEN = "forgotten"
KEPT = "kept.json"  # what head.json is called once the store describes the run as one whose rows lie here to stay
_UID = re.compile("[0-9a-f]{12}")
_OTHERS = {"meta", "apart", "models", "runs", "routers", "experts", "ablations"}  # tables that no shard has rows of
KEYS = ("run", "forward", "router", "next_router", "sequence", "token", "parent", "model")
VOCABULARY = "sums/vocab_rollup.parquet"  # what was counted when the run was finished
COUNTED = ("forward", "sequence", "token")  # that count up while rows come
PLANNED = ("run", "router", *COUNTED)  # whose place in the store is planned when a run begins (placed.py)


def parts_folder(store: Path) -> Path:
    """Where the unfinished runs of `store` lie."""
    path = real(store)
    return path.with_name(path.name + ".parts")


@dataclass(frozen=True)
class UnfinishedRun:
    """One unfinished run; of its shards, the first `most`."""

    path: Path
    most: int | None = None

    @cached_property
    def head(self) -> dict[str, Any]:
        """The run, its model, routers and experts. ValueError if they are not there to read."""
        try:
            head = json.loads((self.path / "head.json").read_text())
        except FileNotFoundError:
            head = json.loads((self.path / KEPT).read_text())
        for name, kind in _HEAD.items():
            if not isinstance(head, dict) or not isinstance(head.get(name), kind):
                raise ValueError(f"head.json has no {name}")
        if not isinstance(head["run"].get("uid"), str):
            raise ValueError("head.json does not say which run this is")
        return head

    @property
    def keys(self) -> dict[str, int]:
        """What the keys in the shards begin at; nothing: all at 0. ValueError if the head does not say it soundly."""
        keys = self.head.get("keys") or {}
        if not isinstance(keys, dict) or not (set(keys) == set(PLANNED) or not keys):
            raise ValueError("head.json does not say where keys begin")
        if not all(type(value) is int and 0 <= value < 1 << 32 for value in keys.values()):
            raise ValueError("head.json does not say where keys begin")
        return keys

    @cached_property
    def numbered(self) -> list[Path]:
        """All shards in order, whether one is missing between them or not."""
        return sorted(p for p in self.path.glob("shard-*") if p.suffix != ".tmp")

    @cached_property
    def shards(self) -> list[Path]:
        """Committed shards in order, up to the first that is missing."""
        there = [shard for number, shard in enumerate(self.numbered) if shard.name == _name(number)]
        return there[: self.most]

    @cached_property
    def progress(self) -> dict[str, Any]:
        """How far the run got: `next` (the next free key of each kind), and what the tracer said at its last commit."""
        if not self.shards:
            return dict(self.head.get("continues", {}).get("progress", {}))
        return {name: value for name, value in _said(self.shards[-1]).items() if name != "written"}

    def written(self, shard: Path) -> dict[str, tuple[int, int]]:
        """{file of a shard: its length and CRC-32, as it was written}. ValueError if that cannot be read."""
        return {name: (length, checksum) for name, (length, checksum) in _said(shard).get("written", {}).items()}

    def first(self, most: int) -> "UnfinishedRun":
        """The same run as it was after so many shards."""
        found = replace(self, most=most)
        found.__dict__["head"] = self.head  # which goes before the shards do
        return found

    def whole(self, deep: bool = False, far: bool = False) -> tuple[int, str | None]:
        """How many shards are as they were written, from the first on, and what is wrong with the next one, if there is one.

        By the lengths of its files; `deep`: by their checksums; `far`: also of files whose rows lie elsewhere, which are read.
        """
        for number, shard in enumerate(self.numbered):
            if shard.name != _name(number):
                return number, f"{_name(number)} is gone"
            if fault := _fault(shard, deep, far):
                return number, f"{shard.name}: {fault}"
        return len(self.numbered), None

    def files(self, table: str) -> list[str]:
        """The Parquet files of a table in order."""
        return [str(shard / f"{table}.parquet") for shard in self.shards if (shard / f"{table}.parquet").exists()]

    def tables(self) -> set[str]:
        """Tables that have rows."""
        names = {file.stem for shard in self.shards for file in shard.glob("*.parquet") if not file.stem.endswith("_rollup")}
        return {name for name in names if is_routed(name) or name in set(tables()) - _OTHERS}

    def counted(self) -> bool:
        """Whether every shard with routed rows has its kept sums beside them, from the beginning of the run."""
        routed = [shard for shard in self.shards if any(shard.glob("routes_*")) or any(shard.glob("*_long.parquet"))]
        return "continues" not in self.head and all((shard / "decision_rollup.parquet").exists() for shard in routed)

    def alive(self) -> bool:
        """Whether the process that writes it still runs (on this machine)."""
        try:
            probe = Lock(self.path / "alive", SHARED)  # shared: probes do not take each other for a writer
        except BlockingIOError:
            return True
        except OSError:
            return False
        probe.close()
        return False

    def lease(self) -> "Lock | None":
        """Keep the files there while they are read, also when the run is joined meanwhile; None if they are going."""
        try:
            return Lock(self.path, SHARED)
        except OSError:
            return None

    def forgotten(self) -> bool:
        """Whether it goes: it was removed while somebody read it, or died before its head was written."""
        if self.path.is_symlink() or not self.path.is_dir() or not _UID.fullmatch(self.path.stem):
            return False
        names = {path.name for path in self.path.iterdir()}
        return self.path.suffix == f".{_FORGOTTEN}" or _FORGOTTEN in names or names <= {"alive", "head.json.tmp"}

    def remove(self) -> None:
        """Forget it; files that somebody reads stay until `clean_up` finds them free."""
        forget(self.path)
        for head in ("head.json", KEPT):
            with suppress(FileNotFoundError):
                (self.path / head).rename(self.path / _FORGOTTEN)
        try:
            lock = Lock(self.path, EXCLUSIVE)
        except OSError:
            return
        going = self.path.with_suffix(f".{_FORGOTTEN}")  # first of all another name: a crash leaves no half of a run
        with suppress(OSError):
            os.rename(self.path, going)
        shutil.rmtree(going if going.exists() else self.path, ignore_errors=True)
        lock.close()

    def settle(self) -> None:
        """It stays here for good, described by its store: no longer one that is unfinished."""
        head = os.path.join(self.path, "head.json")
        if os.path.exists(head):  # a store of many large runs asks each of them
            os.rename(head, self.path / KEPT)
            forget(self.path / "head.json")

    def set_aside(self) -> int:
        """Move the shards beyond `shards` out of the way, kept beside the run; gives how many."""
        beyond = self.numbered[len(self.shards) :]
        for shard in beyond:
            place = self.path.with_suffix(".aside")
            place.mkdir(exist_ok=True)
            forget(shard)
            target = place / shard.name
            os.rename(shard, target if not target.exists() else place / f"{shard.name}-{time.time_ns()}")
        self.__dict__.pop("numbered", None)
        return len(beyond)


def forget(path: Path) -> None:
    """A part, or something of it, goes: also where the store lies elsewhere, once that is told (remote/mirror.py)."""
    if (mirror := mirror_of(path)) is not None:
        mirror.forget(path)


def _name(number: int) -> str:
    return f"shard-{number:06d}"


def _said(shard: Path) -> dict[str, Any]:
    """What the tracer said when it committed a shard. ValueError if that cannot be read."""
    said = json.loads((shard / "progress.json").read_text())
    if not isinstance(said, dict) or not isinstance(said.get("next"), dict):
        raise ValueError("progress.json does not say how far the run was")
    return said


def _fault(shard: Path, deep: bool, far: bool) -> str | None:
    """What is wrong with a shard."""
    try:
        written = _said(shard).get("written", {})
    except (OSError, ValueError) as error:
        return f"progress.json cannot be read ({getattr(error, 'strerror', None) or error})"
    for name, (length, checksum) in written.items():
        try:
            if (shard / name).stat().st_size != length or (
                deep and (far or not is_hollow(shard / name)) and crc(shard / name) != checksum
            ):
                return f"{name} is not as it was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def unfinished_runs(store: Path, kept: bool = False) -> list[UnfinishedRun]:
    """Parts beside a store, oldest first, their heads read: a run that is joined from now on loses its head first.

    What cannot be read is left out; beside.py says what that is. `kept`: also those whose rows stay there.
    """
    found: list[UnfinishedRun] = []
    with suppress(FileNotFoundError, NotADirectoryError):  # the folder goes with its last part
        folder = parts_folder(store)
        for head in [*folder.glob("*/head.json"), *(folder.glob(f"*/{KEPT}") if kept else ())]:
            part = UnfinishedRun(head.parent)
            with suppress(OSError, ValueError):  # joined, and gone, since the folder was listed; or broken
                found += [part] if part.head else []
    return sorted(found, key=lambda part: (str(part.head["run"].get("started")), part.path))
