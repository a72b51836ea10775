"""Files of captures: lines of JSON one at a time, whatever their number; and what a first look at a file says."""

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...foreign import one_line
from .captured import Fault
from .cutting import read_line

_LINE = 1 << 30  # bytes of a line
_MARK = b"\xef\xbb\xbf"  # before text in UTF-8, as some editors write it
Step = Callable[[int], object]


@dataclass
class Line:
    """One record, and how a sentence calls it."""

    value: dict[str, Any]
    number: int
    path: Path
    fault: Fault | None = None  # what is wrong with it, where it is no record

    @property
    def where(self) -> str:
        """As in "response cmpl-1 (line 3 of a.jsonl)"."""
        name = next((self.value[key] for key in ("id", "request_id", "rid") if isinstance(self.value.get(key), str)), None)
        meta = self.value.get("meta_info")
        name = name or (meta.get("id") if isinstance(meta, dict) else None)
        place = f"line {self.number} of {self.path.name}"
        return f"response {str(name)[:80]} ({place})" if name else place


@dataclass
class Head:
    """What a file is, as far as its name and beginning say: `records` are its first objects, if it is JSON lines."""

    path: Path
    start: bytes = b""
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def first(self) -> dict[str, Any]:
        """The first record; empty if it is no JSON."""
        return self.records[0] if self.records else {}


def head(path: Path) -> Head:
    """Look at the beginning of a file or folder."""
    if path.is_dir():
        return Head(path)
    with _unpacking(path), opened(path) as file:
        start = file.read(64)
        while start.isspace():
            start = file.read(64)
    if not start:
        raise InputError(f"{path} is empty: there is nothing in it to import")
    records: list[dict[str, Any]] = []
    if start.removeprefix(_MARK).lstrip()[:1] in (b"{", b"["):
        with _unpacking(path):
            for line in lines(path, lambda n: None):
                records += [line.value] if line.value else []
                if len(records) == 3:
                    break
    return Head(path, start, records)


@contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    """InputError where a packed file is none, or was cut."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        packed = path.suffix.lower() in (".gz", ".bz2", ".zst")
        why = f"it is damaged, was cut off, or is no {path.suffix} file" if packed else "look at its owner and mode"
        raise InputError(f"{path} cannot be read ({one_line(str(error), 80) or type(error).__name__}): {why}") from error


def lines(path: Path, step: Step) -> Iterator[Line]:
    """The objects of a file of JSON lines, or the one of a JSON file, or those of its one list; `step` is told bytes read.

    A line that is none comes with its fault: the file was cut, or is no JSON lines.
    """
    with _unpacking(path), opened(path) as file:
        number = 0
        while raw := file.readline(_LINE):
            step(len(raw))
            number += 1
            raw = raw.removeprefix(_MARK) if number == 1 else raw
            if raw.strip():
                yield from _line(raw, number, path, file, step)


def _line(raw: bytes, number: int, path: Path, file: Any, step: Step) -> Iterator[Line]:
    try:
        value = read_line(raw)
    except (ValueError, RecursionError) as error:
        if number == 1 and raw.strip()[-1:] in b"{[,":  # one object over several lines
            rest = file.read()
            step(len(rest))
            yield from _line(raw.strip() + b" " + rest.strip(), 0, path, file, step)
            return
        why = f"line {number} of {path.name} is no JSON ({str(error)[:80]}): the file was cut, or is none of JSON lines"
        yield Line({}, number, path, Fault(why))
        return
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield Line(one, number, path)
        else:
            what = f"line {number} of {path.name} holds a JSON {type(one).__name__}, not an object: write one object a line"
            yield Line({}, number, path, Fault(what))


def opened(path: Path) -> Any:
    """Its bytes, unpacked. InputError where there is no such file."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; name what the engine wrote")
    kind = path.suffix.lower()
    if kind == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), 1 << 20)
    return {".gz": gzip, ".bz2": bz2}[kind].open(path) if kind in (".gz", ".bz2") else path.open("rb", buffering=1 << 20)
