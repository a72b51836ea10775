"""Bytes of files: listing, hashing, decoding."""

import bz2
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError
from . import bounds

NOT_DATA = re.compile(r"(readme|licen[cs]e|copying|notice|attribution)\b", re.IGNORECASE)


PACKED = (".gz", ".bz2", ".zst")


def suffix(path: Path) -> str:
    """The ending that says the format, in lower case: of `a.jsonl.gz` it is `.jsonl`."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return inner.suffix.lower()


def stem(path: Path) -> str:
    """The name without its endings."""
    return (path.with_suffix("") if path.suffix.lower() in PACKED else path).stem


def read_bytes(path: Path, source: str) -> bytes:
    """What is in a file, unpacked where its ending says that it is packed. InputError where it cannot be, or is too large."""
    import pyarrow as pa

    if path.suffix.lower() not in PACKED:
        return bounds.read_bytes(path, source)
    bounds.read_bytes(path, source, grows=1)  # no pipe, and a size
    try:
        return b"".join(_unpacked(path, source))
    except (EOFError, zlib.error, pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, gzip.BadGzipFile):
            raise
        raise InputError(f"{source} cannot be unpacked ({error}): pack it again, or give it unpacked.") from error


def _unpacked(path: Path, source: str) -> Iterator[bytes]:
    """Pieces of a packed file. InputError once they are more than the memory there is for it, however small it is packed."""
    import pyarrow as pa

    kind = path.suffix.lower()
    opened: Any = (
        pa.input_stream(str(path), compression="zstd") if kind == ".zst" else {".gz": gzip, ".bz2": bz2}[kind].open(path)
    )
    size = 0
    with opened as stream:
        while piece := stream.read(1 << 24):
            size += len(piece)
            bounds.allow(bounds.GROWS * size, source, "unpacked it would fill")
            yield piece


def shown(name: str) -> str:
    """A file's name as it can be stored: bytes that are no UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def list_files(folder: Path) -> list[Path]:
    """Data files below folder in a fixed order: no hidden ones, no README or LICENSE."""
    found = (p for p in folder.rglob("*") if p.is_file() and not NOT_DATA.match(p.name))
    shown = (p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted(shown, key=lambda p: p.relative_to(folder).as_posix())


def sha256(path: Path) -> str:
    """Of a file, as `sha256sum` has it; of a folder, over its data files' digests and names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = (f"{sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in list_files(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_lines(path: Path, source: str) -> list[str]:
    """Lines of a UTF-8 file without their ends (\\n or \\r\\n) and without a byte order mark.

    Raises InputError naming the first byte that is not UTF-8, or NUL.
    """
    data = read_bytes(path, source)
    try:
        text = data.decode()
        bad = data.find(b"\0")  # UTF-8 in theory; in practice UTF-16 or no text at all
    except UnicodeDecodeError as error:
        bad = error.start
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        raise InputError(
            f"{source} is not UTF-8 text: byte 0x{data[bad]:02x} at offset {bad} (line {line}) "
            f"is no part of a text; save it as UTF-8, or leave it out."
        )
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
