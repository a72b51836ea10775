"""A model's folder before any library reads it: regular files, weights that are no pickles by content, sizes that are there.

A pickle runs code when it is loaded, whatever its name is and whichever index names it. A config.json that promises more than
its weights hold would be built in memory before anybody notices.
"""

import json
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .downloads import all_shards, cut, no_pointer

_JSON = 256 << 20  # bytes of a JSON document at most: the largest tokenizers have 40 MB
_HEADER = 100 << 20  # as safetensors itself bounds its header
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# Numbers that size no weight, by a word in their name.
_UNSIZED = re.compile(
    r"position|token|window|length|context|ctx|seq|theta|freq|pixel|image|seed|chunk|_ids?$|scal|audio|time|frame|rate"
)
_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "F8_E4M3": "float8", "F8_E5M2": "float8"}
_DAMAGED = "{} is damaged: its header does not describe its tensors; fetch it again"
_STACKED = re.compile(r"layers?$|blocks?$|depth|n_layer")


@dataclass(frozen=True)
class Shapes:
    """What the weights of a folder hold: tensors, the largest dimension, elements."""

    tensors: int
    dimension: int
    elements: int


def read_json(path: Path) -> Any:
    """A JSON document. ModelError for what is no regular file, too large, no UTF-8, or no JSON."""
    _regular(path)
    if path.stat().st_size > _JSON:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes, more than any such file needs; give the original one")
    no_pointer(path)
    data = path.read_bytes()[: _JSON + 1]
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}") from error
    except RecursionError as error:
        raise ModelError(f"{path} is nested too deeply; give the original file") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); give the original file") from error


def config_of(folder: Path, remote: bool, pickle: bool) -> dict[str, Any]:
    """The folder's config.json, once everything beside it may be loaded. ModelError in one sentence if it may not."""
    for path in folder.iterdir():
        if not path.is_dir():
            _regular(path)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ModelError(
            f"{folder / 'config.json'} is a JSON {type(config).__name__}; a model's is an object with a model_type"
        )
    if not isinstance(config.get("model_type"), str):
        raise ModelError(
            f"{folder / 'config.json'} has no model_type, so nobody knows which model it is; give the original file"
        )
    if "auto_map" in config and not remote:
        raise ModelError(f"{folder} brings code of its own (auto_map in config.json); it runs only with --trust-remote-code")
    files = _weights(folder)
    if not pickle:
        _no_pickles(folder, files)
    if files and all(_is_safetensors(file) for file in files):
        _sized(folder, config, _shapes(files))
    return config


def unpickled(folder: Path, allow: bool) -> None:
    """ModelError for weights in a folder without a config.json (an adapter's) that are pickled, unless that is allowed."""
    plain = sorted(folder.glob("*.safetensors"))
    named = sorted(path for path in folder.iterdir() if path.suffix in _PICKLED)
    if allow:
        return
    if named and not plain:  # read as pickles by their name, whatever they hold
        raise _pickled(folder, named[0])
    _no_pickles(folder, plain)


def _regular(path: Path) -> None:
    """ModelError for a pipe, device, socket or circle of links, which would hang or never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ModelError(f"{path} leads to a file that is not there; repair the link or remove it") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ModelError(f"{path} is a folder, device, pipe or socket, where a file should be; give the original one")


def _weights(folder: Path) -> list[Path]:
    """Files that loading would read: safetensors before pickles, an index's files where there is no whole one."""
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    for index in _INDEXES:
        if (folder / index).exists():
            return _indexed(folder, folder / index)
    plain = sorted(folder.glob("*.safetensors"))
    all_shards(folder, plain)
    return plain or sorted(path for path in folder.iterdir() if path.suffix in _PICKLED)


def _indexed(folder: Path, index: Path) -> list[Path]:
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index} is no index of weights: its weight_map must name a file for every tensor")
    files = sorted(set(names.values()))
    if strange := [name for name in files if Path(name).name != name or not name.strip()]:
        raise ModelError(f"{index} names {strange[0][:80]!r}, which is no file of its folder; give the original index")
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ModelError(f"{folder} lacks {missing[0][:80]} ({len(missing)} of {len(files)} files of its weights){cut(folder)}")
    return [folder / name for name in files]


def _no_pickles(folder: Path, files: list[Path]) -> None:
    for file in files:
        no_pointer(file)
        if _is_safetensors(file):
            continue
        if file.suffix in _PICKLED or _is_pickle(file):
            raise _pickled(folder, file)
        raise ModelError(f"{file} is damaged: it does not begin as a safetensors file; fetch it again")


def _pickled(folder: Path, file: Path) -> ModelError:
    return ModelError(
        f"the weights in {folder} are pickled ({file.name}), which can run code; convert them to safetensors, or say "
        "--allow-pickle if you trust them"
    )


def _is_safetensors(path: Path) -> bool:
    """By content: a length, then a JSON object of that length."""
    with path.open("rb") as file:
        head = file.read(9)
    size = struct.unpack("<Q", head[:8])[0] if len(head) == 9 else 0
    return 0 < size <= min(_HEADER, path.stat().st_size - 8) and head[8:] == b"{"


def _is_pickle(path: Path) -> bool:
    """By content: a pickle of protocol 2 or later, or an archive of one as torch.save writes."""
    with path.open("rb") as file:
        head = file.read(4)
    return head == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def weight_files(folder: Path) -> list[Path]:
    """Files in safetensors that loading would read; none where it reads others, or there are none."""
    found = _weights(folder)
    return found if all(_is_safetensors(file) for file in found) else []


def entries(path: Path) -> Iterator[tuple[str, int, int]]:
    """(type, numbers, bytes) of every tensor by a file's header. ModelError for a header that is damaged."""
    for name, entry in _read_header(path).items():
        if name != "__metadata__":
            begin, end = entry.get("data_offsets", (0, 0))
            yield _TYPES.get(str(entry.get("dtype")), str(entry.get("dtype")).lower()), prod(entry["shape"]), end - begin


def _shapes(files: list[Path]) -> Shapes:
    shapes = [shape for file in files for shape in _header(file)]
    return Shapes(len(shapes), max((d for s in shapes for d in s), default=0), sum(map(prod, shapes)))


def _read_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        try:
            return json.loads(file.read(size))  # type: ignore[no-any-return]
        except (ValueError, RecursionError) as error:
            raise ModelError(_DAMAGED.format(path)) from error


def _header(path: Path) -> Iterator[list[int]]:
    """Shapes of the tensors. ModelError for a header that is damaged."""
    damaged = _DAMAGED.format(path)
    for name, entry in _read_header(path).items():
        if name == "__metadata__":
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ModelError(damaged)
        yield shape


def _sized(folder: Path, config: Any, shapes: Shapes) -> None:
    """ModelError for a number in the configuration that no weight bears out: it would be built before it is missed."""
    for name, number in _numbers(config):
        word = name.rpartition(".")[2]
        most = max(shapes.tensors, 1000) if _STACKED.search(word) else 16 * max(shapes.dimension, shapes.tensors, 1 << 16)
        if number > most and not _UNSIZED.search(word):
            raise ModelError(
                f"{folder / 'config.json'} says {name} {number:,}, but the weights beside it are {shapes.tensors:,} tensors "
                f"with dimensions up to {shapes.dimension:,}; give the configuration that belongs to them"
            )


def _numbers(tree: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Whole numbers in a configuration with their names, those in lists left out."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif type(tree) is int:
        yield name, tree
