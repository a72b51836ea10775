"""Read the authors' published checkpoints, `PREFIX.index` and `PREFIX.data-nnnnn-of-NNNNN`, without JAX.

Arrays are numbered. In files that say version 20220622 the numbers follow the saved state, a nested dict, its keys
sorted. Older files say no version and number the saving object instead (a TrainState: step, parameters, optimizer), so
there the parameters are found by which pieces lie in which file. Source: vmoe/checkpoints/partitioned.py and its past.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import InputError
from ..config import VMoEConfig
from ..model import VMoE
from .flax import from_flax
from .published import infer_config
from .wire import IndexInfo, Slices, elements, read_index, read_pieces

VERSION = "20220622"
Leaves = list[tuple[str, IndexInfo]]


def from_checkpoint(prefix: str | Path, config: VMoEConfig | Mapping[str, Any] | str | None = None) -> VMoE:
    """The model of a checkpoint, in evaluation mode; without `config` it is inferred as for the published models."""
    params = read_checkpoint(prefix)
    return from_flax(params, infer_config(params) if config is None else config)


def read_checkpoint(prefix: str | Path) -> dict[str, np.ndarray]:
    """Parameters by flax path (without 'params/'), optimizer state left out; shards are read one by one.

    bfloat16 becomes float32. InputError where a file is missing, damaged or does not hold what the index says.
    """
    base = str(prefix).removesuffix(".index")
    if not Path(f"{base}.index").is_file():
        raise InputError(f"{base}.index does not exist: give the prefix of PREFIX.index and PREFIX.data-nnnnn-of-NNNNN.")
    content = read_index(Path(f"{base}.index"))
    if content["version"] not in (None, VERSION):
        raise InputError(f"{base}.index is of version {content['version']}: only {VERSION} and older can be read.")
    leaves = _leaves(content["index"])
    params = {i: leaf for i, leaf in enumerate(leaves) if leaf[0].startswith("params/")} or dict(enumerate(leaves))
    files = _files(base, content["shard_count"])
    if content["version"] is None:
        first = _first_number(list(params.values()), files)
        params = {first + i: leaf for i, leaf in enumerate(params.values())}
    return _read(params, files)


def _leaves(tree: Any, prefix: str = "") -> Leaves:
    if isinstance(tree, IndexInfo):
        return [(prefix.removesuffix("/"), tree)]
    if not isinstance(tree, dict):
        return []
    return [leaf for name in sorted(tree) for leaf in _leaves(tree[name], f"{prefix}{name}/")]


def _files(base: str, count: int) -> list[Path]:
    files = [Path(f"{base}.data-{i:05d}-of-{count:05d}") for i in range(count)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {count} data files of {base} are missing, the first is {missing[0]}.")
    return files


def _first_number(params: Leaves, files: list[Path]) -> int:
    """Number of the first parameter where the file does not say: after the step, if the pieces agree with that."""
    found: dict[int, set[tuple[int, Slices]]] = {}
    for shard, file in enumerate(files):
        for piece in read_pieces(file, None):
            found.setdefault(piece.leaf, set()).add((shard, piece.slices))
    starts = range(max(found, default=-1) + 2 - len(params))
    fits = [s for s in starts if all(found.get(s + i) == leaf.pieces for i, (_, leaf) in enumerate(params))]
    if not fits:
        raise InputError(f"no run of arrays in {files[0].name} and the others has the shapes of the parameters.")
    after_step = 1 if params[0][0].startswith("params/") else 0
    if after_step not in fits and len(fits) > 1:
        raise InputError(f"the parameters in {files[0].name} could begin at arrays {fits}: the file does not say where.")
    return after_step if after_step in fits else fits[0]


def _read(params: Mapping[int, tuple[str, IndexInfo]], files: list[Path]) -> dict[str, np.ndarray]:
    arrays = {i: np.empty(leaf.shape, leaf.dtype) for i, (_, leaf) in params.items()}
    left = {i: array.size for i, array in arrays.items()}
    for shard, file in enumerate(files):
        wanted = {i for i, (_, leaf) in params.items() if shard in leaf.shards}
        for piece in read_pieces(file, wanted) if wanted else ():
            if (shard, piece.slices) not in params[piece.leaf][1].pieces or piece.values is None:
                raise InputError(f"{file.name} holds a piece of {params[piece.leaf][0]} that the index does not know.")
            arrays[piece.leaf][tuple(slice(*bounds) for bounds in piece.slices)] = piece.values
            left[piece.leaf] -= elements(piece.slices)
    unfinished = [params[i][0] for i, count in left.items() if count]
    if unfinished:
        raise InputError(f"{files[0].name} and the others hold only parts of {unfinished[0]}: fetch the files again.")
    return {path.removeprefix("params/"): arrays[i] for i, (path, _) in params.items()}
