"""A finished run on its way from one store to another, also to another machine: written aside, packed, and joined there."""

import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import StoreError
from ...connect import connect
from ...files.durable import write_atomic
from ..change import try_clean_up
from ..unfinished_run import UnfinishedRun
from ..writer import RunWriter

FINAL = "final.json"
_MEMBER = re.compile(r"head\.json|final\.json|shard-[0-9]{6}/[a-z0-9_]{1,60}\.(parquet|json)")
MOST = 1 << 30  # bytes of a run that is packed


class Aside(RunWriter):
    """A writer whose run is not joined to its store when it closes: it lies beside it, whole, until it is packed or forgotten.

    `close` gives -1 for a number, which a run gets only where it is joined.
    """

    def close(self, run: Mapping[str, Any], progress: Mapping[str, Any]) -> int:
        """Commit the rest, and note the final columns of the run."""
        try:
            self.commit(progress)
            final = {**run, "progress": {**progress, "next": self.next}}
            write_atomic(self.part.path / FINAL, json.dumps(final, default=str))
        finally:
            self.release()
        return -1


def packed(part: UnfinishedRun) -> bytes:
    """A run that `Aside` closed, as a tar. StoreError where it is not whole, or too large to be handed on so."""
    whole, fault = part.whole(deep=True)
    files = [part.path / "head.json", part.path / FINAL, *(f for shard in part.shards for f in sorted(shard.iterdir()))]
    if fault or not whole or not all(file.is_file() for file in files):
        raise StoreError(f"run {part.path.name} is not as it was written ({fault or 'files are gone'}): make it again")
    if (size := sum(file.stat().st_size for file in files)) > MOST:
        raise StoreError(f"run {part.path.name} has {size >> 20} MiB, more than is handed on: trace it into the store instead")
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for file in files:
            tar.add(file, file.relative_to(part.path).as_posix(), recursive=False)
    return held.getvalue()


def join_packed(store: Path, data: bytes, name: str | None = None) -> int:
    """Join a packed run to `store`, under another `name` if one is given; gives its number there, also if it is there already.

    StoreError where it is no such run or cannot be joined; then nothing is left of it.
    """
    files = _unpacked(data)
    head, final = (_read(files.pop(one, b"")) for one in ("head.json", FINAL))
    if (there := _there(store, head["run"]["uid"])) is not None:
        return there
    head["run"] |= {} if name is None else {"name": name}
    writer = RunWriter.create(store, {"keys": {}, **head})  # those that its shards have
    part = writer.part.path
    try:
        for member, content in files.items():
            (part / member).parent.mkdir(exist_ok=True)
            (part / member).write_bytes(content)
        shards, fault = UnfinishedRun(part).whole(deep=True)
        if fault or not shards:
            raise StoreError(f"what was sent is not the whole run ({fault or 'it has no rows'}): keep it again")
        writer.release()
        return RunWriter.resume(store, UnfinishedRun(part)).close(final, final.get("progress", {}))
    except BaseException:
        writer.release()
        UnfinishedRun(part).remove()
        try_clean_up(store)
        raise


def _unpacked(data: bytes) -> dict[str, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = [m for m in tar.getmembers() if m.isreg() and _MEMBER.fullmatch(m.name)]
            return {m.name: held.read() for m in members if (held := tar.extractfile(m)) is not None}
    except tarfile.TarError as error:
        raise StoreError("what was sent is no packed run: keep it again") from error


def _read(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
        if not isinstance(found, dict) or ("run" in found and not isinstance(found["run"].get("uid"), str)):
            raise ValueError("not a run")
    except (ValueError, AttributeError) as error:
        raise StoreError("what was sent is no packed run: keep it again") from error
    return found


def _there(store: Path, uid: str) -> int | None:
    """The number of a run that a store has."""
    if not store.exists():
        return None
    with connect(store) as con:
        return next(
            (int(run) for (run,) in con.execute("select run from base.main.runs where uid = ?", [uid]).fetchall()), None
        )
