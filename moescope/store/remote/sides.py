"""What two copies of a store's folder have: which files count, in which order they go over, and how one is known again."""

import json
import os
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

STORE = "store.duckdb"
_PART = rf"{re.escape(STORE)}\.parts/[0-9a-f]{{12}}"
SHARD = re.compile(rf"({_PART}/(?:shard-\d{{6,}}|sums))/([a-z0-9_]+\.parquet|progress\.json)")
HEADS = re.compile(rf"({_PART})/(head|kept|stretches)\.json")
YOUNG = " ?"
_SETTLED_S = 3.0  # a file that is younger may be changed again without looking changed: clocks of object stores count seconds


def counts(name: str, there: Collection[str]) -> bool:
    """Whether a file is one of a run's: a head, or of a shard that is whole."""
    found = SHARD.fullmatch(name)
    if found is None:
        return HEADS.fullmatch(name) is not None
    return found[1].endswith("/sums") or f"{found[1]}/progress.json" in there


def order(name: str) -> int:
    """Rows are put first, then whose they are, then that they are there."""
    return 0 if name.endswith(".parquet") else 2 if name.endswith("/progress.json") else 1


def settled(name: str, size: int, version: str) -> str:
    """How a file is known: of one so young that it could be changed again unseen, as one to be looked at again."""
    young = version.isdigit() and time.time() - int(version) / 1e9 < _SETTLED_S
    return f"{size} {version}{YOUNG if young and SHARD.fullmatch(name) is None else ''}"


def being_written(part: Path) -> bool:
    """Whether a process of this machine writes a part."""
    try:
        import fcntl

        with (part / "alive").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


def stat_of(path: Path) -> list[int]:
    """Changes when a file of this machine does; zeros where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return [0, 0]
    return [stat.st_mtime_ns, stat.st_size]


def read(path: Path, otherwise: Any) -> Any:
    """What a small file says, or what is given instead where there is none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return otherwise


def write(path: Path, said: Any) -> None:
    """Say it, in one step."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(said))
    os.replace(temporary, path)
