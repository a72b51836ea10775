"""Writes checkpoint files in the V-MoE authors' format, as small and as wrong as a test wants."""

from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from moescope.models.vmoe.checkpoints.wire import MAGIC

Tree = dict[str, Any]
Slices = tuple[tuple[int, int], ...]


def pack(value: Any) -> bytes:
    return msgpack.packb(value, use_bin_type=True)


def packed_slices(slices: Slices) -> bytes:
    return pack([pack([start, stop, None]) for start, stop in slices])


def array(values: np.ndarray, dtype: str | None = None) -> msgpack.ExtType:
    return msgpack.ExtType(1, pack([list(values.shape), dtype or values.dtype.name, values.tobytes()]))


def info(values: np.ndarray, slices: list[Slices], shards: list[int], dtype: str | None = None) -> msgpack.ExtType:
    shaped = pack([list(values.shape), dtype or values.dtype.name, False, {}])
    return msgpack.ExtType(8, pack([shaped, [packed_slices(s) for s in slices], shards]))


def halves(values: np.ndarray) -> list[Slices]:
    """The array in two pieces along its first axis where it has two rows, else whole."""
    whole = tuple((0, size) for size in values.shape)
    if not whole or values.shape[0] < 2:
        return [whole]
    middle = values.shape[0] // 2
    return [((0, middle), *whole[1:]), ((middle, values.shape[0]), *whole[1:])]


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, np.ndarray]]:
    """Leaves in the order of a flattened nested dict: keys sorted at every level."""
    if isinstance(tree, np.ndarray):
        return [(prefix, tree)]
    return [leaf for name in sorted(tree) for leaf in leaves(tree[name], f"{prefix}/{name}")]


def write(prefix: Path, tree: Tree, shards: int = 3, version: str | None = "20220622", dtype: str | None = None) -> None:
    """Pieces go round the shards; each piece is stored as two flat parts."""
    data: list[dict[str, Any]] = [{MAGIC: True} for _ in range(shards)]
    index: dict[str, Any] = {}
    turn = 0
    for number, (path, values) in enumerate(leaves(tree)):
        where = [(turn + i) % shards for i in range(len(halves(values)))]
        turn += len(where)
        place(index, path.strip("/").split("/"), info(values, halves(values), where, dtype))
        for shard, slices in zip(where, halves(values)):
            flat = values[tuple(slice(*bounds) for bounds in slices)].reshape(-1)
            parts = [array(part, dtype) for part in np.array_split(flat, 2)] if flat.size > 1 else [array(flat, dtype)]
            data[shard].setdefault(str(number), []).append([parts, msgpack.ExtType(6, packed_slices(slices))])
    head = {"shard_count": shards, "index": index, **({"version": version} if version else {})}
    Path(f"{prefix}.index").write_bytes(pack(head))
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(pack(content))


def place(tree: Tree, path: list[str], leaf: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf
