"""Bytes of files: listing, hashing, decoding."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

NOT_DATA = re.compile(r"(readme|licen[cs]e|copying|notice|attribution)\b", re.IGNORECASE)


PACKED = (".gz", ".bz2", ".zst")
_TOGETHER = {".tgz": (".tar", ".gz"), ".tbz2": (".tar", ".bz2"), ".tzst": (".tar", ".zst")}


def _endings(path: Path) -> tuple[str, str | None]:
    """The ending that says the format, and that which says how it is packed, if it is; in lower case."""
    last = path.suffix.lower()
    if last in _TOGETHER:
        return _TOGETHER[last]
    return (path.with_suffix("").suffix.lower(), last) if last in PACKED else (last, None)


def suffix(path: Path) -> str:
    """The ending that says the format, in lower case: of `a.jsonl.gz` it is `.jsonl`."""
    return _endings(path)[0]


def packing(path: Path) -> str | None:
    """The ending that says how a file is packed, in lower case: of `a.jsonl.gz` it is `.gz`."""
    return _endings(path)[1]


def stem(path: Path) -> str:
    """The name without its endings."""
    return (path.with_suffix("") if path.suffix.lower() in PACKED else path).stem


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
    return sha256_of(path, list_files(path))


def sha256_of(root: Path, paths: Iterable[Path]) -> str:
    """Over the digests and names of files below a folder."""
    lines = (f"{sha256(p)}  {p.relative_to(root).as_posix()}\n" for p in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
