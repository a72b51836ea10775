"""The seal: a checksum of the whole file behind its last block, where DuckDB does not look.

DuckDB checks its blocks as it reads them, and nothing else: not the blocks that are free, not the header that is not in use.
With the seal a file is either bit for bit what moescope wrote, or it is not. Another program that writes into the file leaves
the old seal, or none; DuckDB counts its checkpoints, and the seal knows the count.

behind the last block: b"moescope seal 1\\n", length of the file before it and DuckDB's count (little-endian, 8 bytes each), its
sha256, and the sha256 of all these.
"""

import hashlib
import os
import struct
from pathlib import Path

_MAGIC = b"moescope seal 1\n"
_BODY = struct.Struct("<16sQQ32s")
SIZE = _BODY.size + 32
_HEADERS, _BLOCK = 3 * 4096, 16_384  # bytes: DuckDB's three headers, and what the lengths of its blocks are multiples of
_PIECE = 1 << 22


def seal(path: Path) -> None:
    """Write the seal behind what is in `path`, which has none."""
    length = path.stat().st_size
    body = _BODY.pack(_MAGIC, length, _count(path), _sha256(path, length))
    with path.open("ab") as file:
        file.write(body + hashlib.sha256(body).digest())


def unseal(path: Path) -> None:
    """Take the seal off, if there is one: DuckDB would leave it inside when it makes the file longer."""
    length = path.stat().st_size
    if length > SIZE and _tail(path).startswith(_MAGIC):
        os.truncate(path, length - SIZE)


def broken(path: Path) -> str | None:
    """What is wrong with the file by its seal, in words; None if nothing is, or if there is no seal to tell."""
    length, tail = path.stat().st_size, _tail(path)
    if not tail.startswith(_MAGIC):
        return "its seal is not as it was written" if has_seal(path) else None
    body = tail[: _BODY.size]
    if hashlib.sha256(body).digest() != tail[_BODY.size :]:
        return "its seal is not as it was written"
    _, was, count, digest = _BODY.unpack(body)
    if _sha256(path, length - SIZE) == digest and was == length - SIZE:
        return None
    return None if _count(path) > count else "it is not bit for bit what was written"


def has_seal(path: Path) -> bool:
    """Whether there is a seal, or what is left of one."""
    return _tail(path).startswith(_MAGIC) or (path.stat().st_size - _HEADERS) % _BLOCK != 0


def rewritten(path: Path) -> bool:
    """Whether another program wrote into the file after it was sealed, by DuckDB's count."""
    tail = _tail(path)
    return tail.startswith(_MAGIC) and len(tail) == SIZE and _count(path) > _BODY.unpack(tail[: _BODY.size])[2]


def looks_like_a_store(path: Path) -> bool:
    """Whether the file is DuckDB's, or was moescope's before it was damaged."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
        return path.is_file() and (head[8:12] == b"DUCK" or _tail(path).startswith(_MAGIC))
    except OSError:
        return False


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SIZE))
        return file.read(SIZE)


def _count(path: Path) -> int:
    """The larger of the counts of checkpoints in DuckDB's two database headers, each behind eight bytes of checksum."""
    with path.open("rb") as file:
        head = file.read(_HEADERS).ljust(_HEADERS, b"\0")
    return max(int(struct.unpack_from("<Q", head, page + 8)[0]) for page in (4096, 8192))


def _sha256(path: Path, length: int) -> bytes:
    digest, left = hashlib.sha256(), length
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(_PIECE, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.digest()
