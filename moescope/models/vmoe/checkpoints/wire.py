"""What the authors' checkpoint files are made of: msgpack with their own types (vmoe/checkpoints/serialization.py)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np

from ....errors import InputError

MAGIC = "__msgpack_array_chunk_a87ca2__"
Slices = tuple[tuple[int, int], ...]
_DAMAGED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, msgpack.exceptions.UnpackException)


@dataclass(frozen=True)
class IndexInfo:
    """One array: its shape and dtype as read, and where its pieces are: `slices[i]` lies in shard `shards[i]`."""

    shape: tuple[int, ...]
    dtype: np.dtype
    slices: tuple[Slices, ...]
    shards: tuple[int, ...]

    @property
    def pieces(self) -> frozenset[tuple[int, Slices]]:
        """(shard, slices) of every piece."""
        return frozenset(zip(self.shards, self.slices))


class Piece(NamedTuple):
    """A part of array number `leaf`; `values` is None where it was only looked at."""

    leaf: int
    slices: Slices
    values: np.ndarray | None


def read_index(path: Path) -> dict[str, Any]:
    """The index file: {'shard_count', 'index': nested dict of IndexInfo, 'version' or nothing}."""
    try:
        content = msgpack.unpackb(path.read_bytes(), ext_hook=_typed, raw=False, strict_map_key=False)
        return {"shard_count": int(content["shard_count"]), "index": content["index"], "version": content.get("version")}
    except _DAMAGED as error:
        raise InputError(f"{path} is not the index of a V-MoE checkpoint ({error or type(error).__name__}).") from error


def read_pieces(path: Path, wanted: set[int] | None) -> Iterator[Piece]:
    """Pieces in one data file, one at a time: those of the wanted arrays, or of all without their values."""
    try:
        with path.open("rb") as file:
            stream = msgpack.Unpacker(file, ext_hook=_typed, raw=False, strict_map_key=False, max_buffer_size=0)
            for _ in range(stream.read_map_header()):
                key = stream.unpack()
                if key == MAGIC or (wanted is not None and int(key) not in wanted):
                    stream.skip()
                else:
                    yield from _pieces(stream, int(key), wanted is not None)
    except _DAMAGED as error:
        raise InputError(f"{path} is damaged ({error or type(error).__name__}): fetch the file again.") from error


def _pieces(stream: Any, leaf: int, values: bool) -> Iterator[Piece]:
    for _ in range(stream.read_array_header()):
        stream.read_array_header()
        parts = [stream.unpack() if values else stream.skip() for _ in range(stream.read_array_header())]
        slices = stream.unpack()
        shape = [stop - start for start, stop in slices]
        yield Piece(leaf, slices, np.concatenate(parts).reshape(shape) if values else None)


def _typed(code: int, data: bytes) -> Any:
    if code in (1, 3):
        return _array(*msgpack.unpackb(data, raw=True))
    if code == 4:
        shape, dtype, *_ = msgpack.unpackb(data, raw=True, strict_map_key=False)
        return tuple(shape), dtype.decode()
    if code == 5:
        start, stop, *_ = msgpack.unpackb(data)
        return start or 0, stop
    if code == 6:
        return tuple(_typed(5, part) for part in msgpack.unpackb(data, raw=True))
    if code == 8:
        return _info(*msgpack.unpackb(data, raw=True))
    return msgpack.ExtType(code, data)


def _info(array: bytes, slices: list[bytes], shards: list[int]) -> IndexInfo:
    shape, dtype = _typed(4, array)
    found = tuple(_whole(_typed(6, part), shape) for part in slices)
    if sum(map(elements, found)) != math.prod(shape) or len(found) != len(shards):
        raise ValueError(f"pieces do not make up an array of shape {shape}")
    return IndexInfo(shape, np.dtype(np.float32 if dtype == "bfloat16" else dtype), found, tuple(shards))


def _whole(slices: Any, shape: tuple[int, ...]) -> Slices:
    return tuple((start, size if stop is None else stop) for (start, stop), size in zip(slices, shape))


def _array(shape: list[int], dtype: bytes, data: bytes) -> np.ndarray:
    if dtype == b"bfloat16":
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    return np.frombuffer(data, np.dtype(dtype.decode())).reshape(shape)


def elements(slices: Slices) -> int:
    """How many numbers a piece has."""
    return math.prod(stop - start for start, stop in slices)
