"""Bytes of files: listing, hashing, decoding."""

import hashlib
import re
from pathlib import Path

from moescope.errors import InputError
from moescope.inputs._bounds import read_bytes

NOT_DATA = re.compile(r"(readme|licen[cs]e|copying|notice|attribution)\b", re.IGNORECASE)


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
