"""Answers that are kept: computed once, read ever after, by command line, report and dashboard alike.

Not in a store, nor beside it: a store is somebody's file, which is mailed, read-only, or open elsewhere, and reading it must
change neither it nor its folder. They lie in the user's own cache, MOESCOPE_CACHE or $XDG_CACHE_HOME/moescope or
~/.cache/moescope, in a file each, named by what an answer depends on: the content of its run (and of runs that it compares it
with), its options, the code of the analysis with all it imports, and the libraries that compute. So an answer holds for every
copy of a store and after other runs are added, and is never found once anything of that changed. Answers about runs that are
still traced are not kept. MOESCOPE_CACHE=off keeps nothing; where nothing can be written, nothing is kept and no word is lost.
LIMIT bytes: what was not read for longest goes first.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pandas as pd
import pyarrow as pa

from ....errors import AnalysisError
from ....store import Store
from ....store.content import digest
from ....words import RunNumber
from ..answer import Answer
from ..verdicts.verdict import Verdict
from .source import code_of, reads_ablations

FORM = 1  # of the files
LIMIT = 1 << 30  # bytes of all files together
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, pa.ArrowException)


def folder() -> Path | None:
    """Where answers are kept; None where the user wants none."""
    named = os.environ.get("MOESCOPE_CACHE")
    if named is not None:
        return None if named.strip().lower() in ("", "off") else Path(named).expanduser() / "answers"
    with suppress(RuntimeError):  # a user without a home
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moescope" / "answers"
    return None


def key(module: ModuleType, store: Store, run: int, options: Mapping[str, Any]) -> str | None:
    """What the answer depends on, as a name; None where a run that it needs is still traced, or is not there."""
    try:
        runs = [run, *_beside(module, store, run, options)]
    except AnalysisError:
        return None
    if store.rows("select count(*) from runs where status = 'running' and list_contains(?, run)", [runs])[0][0]:
        return None
    contents = [digest(store, one, reads_ablations(module)) for one in runs]
    said = [FORM, module.__name__, code_of(module), runs, contents, sorted(options.items()), _files(options)]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()


def _files(options: Mapping[str, Any]) -> list[Any]:
    """The states of files that options name."""
    found: list[Any] = []
    for named in (str(value) for _, value in sorted(options.items()) if isinstance(value, str | Path) and value):
        with suppress(OSError, ValueError):
            stat = Path(named).stat()
            found.append([str(Path(named).resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino])
    return found


def _beside(module: ModuleType, store: Store, run: int, options: Mapping[str, Any]) -> list[int]:
    """Runs that the answer depends on beside its own: what the analysis says, or all, if it has an option that names a run."""
    if hasattr(module, "beside"):
        return list(module.beside(store, run, **options))
    hints = get_type_hints(module.run, include_extras=True)
    if not any(RunNumber in (hint, *getattr(hint, "__args__", ())) for name, hint in hints.items() if name in options):
        return []
    return [number for (number,) in store.rows("select run from runs where run <> ? order by run", [run])]


def answered(module: ModuleType, store: Store, run: int, options: Mapping[str, Any], fresh: bool = False) -> Answer:
    """The answer, kept or computed (always, if `fresh`) and then kept."""
    path = _path(module, store, run, options)
    if path is not None and not fresh and (found := _read(path, module)):
        return found
    answer: Answer = module.run(store, run, **options)
    if path is not None and type(answer) is Answer and answer.draw is getattr(module, "charts", None):
        _write(path, answer)
    return answer


def there(module: ModuleType, store: Store, run: int, options: Mapping[str, Any]) -> bool:
    """Whether the answer is kept."""
    path = _path(module, store, run, options)
    return path is not None and path.exists()


def _path(module: ModuleType, store: Store, run: int, options: Mapping[str, Any]) -> Path | None:
    if (place := folder()) is None or (name := key(module, store, run, options)) is None:
        return None
    return place / name


def _read(path: Path, module: ModuleType) -> Answer | None:
    try:
        with zipfile.ZipFile(path) as file:
            said = json.loads(file.read("answer"))
            frames = [_frame(file.read(str(n))) for n in range(len(said["frames"]) + 1)]
        with suppress(OSError):
            os.utime(path)
        verdict = Verdict(**said["verdict"], rows=frames.pop())
        named = dict(zip(said["frames"], frames, strict=True))
        draw = getattr(module, "charts", None)
        return Answer(said["name"], said["title"], verdict, said["run"], named, said["sql"], said["notes"], draw)
    except _UNREADABLE:
        return None


def _write(path: Path, answer: Answer) -> None:
    """Whole or not at all; what cannot be written is not kept."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        packed = _packed(answer)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(packed)
        temporary.replace(path)
        _prune(path.parent)
    except _UNREADABLE:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _packed(answer: Answer) -> bytes:
    verdict = {name: getattr(answer.verdict, name) for name in ("follows", "evidence", "limits", "ask")}
    said = {"name": answer.name, "title": answer.title, "verdict": verdict, "run": answer.run, "sql": answer.sql}
    said |= {"notes": answer.notes, "frames": list(answer.frames)}
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("answer", json.dumps(said))
        for n, frame in enumerate([*answer.frames.values(), answer.verdict.rows]):
            file.writestr(str(n), _bytes(frame))
    return made.getvalue()


def _bytes(frame: pd.DataFrame) -> bytes:
    table, made = pa.Table.from_pandas(frame), pa.BufferOutputStream()
    with pa.ipc.new_stream(made, table.schema) as out:
        out.write_table(table)
    return bytes(made.getvalue())


def _frame(packed: bytes) -> pd.DataFrame:
    with pa.ipc.open_stream(packed) as stream:
        return stream.read_all().to_pandas()


def _prune(place: Path) -> None:
    """What was not read for longest goes until the rest is under LIMIT."""
    files = sorted(((s := file.stat()).st_mtime, s.st_size, file) for file in place.iterdir() if file.is_file())
    over = sum(size for _, size, _ in files) - LIMIT
    for _, size, file in files:
        if over <= 0:
            return
        file.unlink(missing_ok=True)
        over -= size
