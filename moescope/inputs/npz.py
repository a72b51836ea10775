"""NumPy archives: `images` (N, H, W[, C]) uint8 with optional `labels` (N,) and `class_names`,
or `input_ids` (N, T) integers with an optional `attention_mask` (N, T) that says which are no padding.
"""

import zlib
from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic

from ..errors import InputError
from ..foreign import one_line
from ._reading.bounds import allow
from ._reading.options import Options
from ._reading.types import Example

SUFFIXES = frozenset({".npz"})
TAKES: frozenset[str] = frozenset()
KNOWN = {"images", "labels", "class_names", "input_ids", "attention_mask"}
Arrays = dict[str, np.ndarray]


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per row of `images` or `input_ids`; each is a document."""
    source = options.name(path)
    arrays, others = _load(path, source)
    return of_arrays(arrays, options, source, others)


def of_arrays(arrays: Arrays, options: Options, source: str, others: Collection[str] = ()) -> Iterator[Example]:
    """One example per row of arrays of these names; `others` are the names of arrays that are not read."""
    others = {*others, *(arrays.keys() - KNOWN)}
    options.report.skip(source, "arrays of unknown names", len(others))
    if ("images" in arrays) == ("input_ids" in arrays):
        raise InputError(
            f"{source} holds the arrays {', '.join(dict.fromkeys([*arrays, *others])) or '(none)'}: "
            f"give either `images` (N, H, W[, C], uint8) or `input_ids` (N, T, integers)."
        )
    labels = _labels(arrays, source)
    for row, image in enumerate(_images(arrays, source)):
        yield Example(source, row, f"{source}:{row}", image=image, labels=labels[row] if labels else {})
    for row, ids in enumerate(_ids(arrays, source)):
        yield Example(source, row, f"{source}:{row}", input_ids=ids, labels=labels[row] if labels else {})


def _load(path: Path, source: str) -> tuple[Arrays, list[str]]:
    """Arrays of known names, and the other names; every header is checked before anything is unpacked."""
    allow(path.stat().st_size, source)
    try:
        with ZipFile(path) as archive:
            known = {name: info for info in archive.infolist() if (name := info.filename.removesuffix(".npy")) in KNOWN}
            allow(sum(_size(archive, info, source) for info in known.values()), source)
            others = [info.filename.removesuffix(".npy") for info in archive.infolist() if info not in known.values()]
            return {name: _array(archive, info) for name, info in known.items()}, others
    except (ValueError, BadZipFile, EOFError, NotImplementedError, RuntimeError, SyntaxError, zlib.error) as error:
        raise InputError(f"{source} is not an .npz archive ({one_line(str(error))}): write it with numpy.savez.") from error


def _array(archive: ZipFile, info: ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        return read_array(file, allow_pickle=False)


def _size(archive: ZipFile, info: ZipInfo, source: str) -> int:
    """Bytes of an array by its header. InputError for pickled objects, ValueError where the header does not fit the file."""
    with archive.open(info) as file:
        version = read_magic(file)
        shape, _, dtype = read_array_header_1_0(file) if version == (1, 0) else read_array_header_2_0(file)
        if dtype.hasobject:
            raise InputError(
                f"{source} holds pickled objects, which moescope does not load because they can run code: "
                f"save plain arrays of numbers or strings."
            )
        size = prod(shape) * dtype.itemsize
        if size != info.file_size - file.tell():
            raise ValueError(f"{info.filename} says {size:,} bytes and has {info.file_size - file.tell():,}")
    return size


def _images(arrays: Arrays, source: str) -> np.ndarray | list[np.ndarray]:
    images = arrays.get("images")
    if images is not None and (images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:3]):
        raise InputError(f"{source}: `images` is {_form(images)}: give (N, H, W) or (N, H, W, C) uint8.")
    if images is not None and images.ndim == 4 and images.shape[3] not in (1, 3, 4):
        raise InputError(f"{source}: `images` is {_form(images)}: its last axis holds 1, 3 or 4 channels.")
    return [] if images is None else images


def _ids(arrays: Arrays, source: str) -> list[np.ndarray]:
    ids = arrays.get("input_ids")
    if ids is None:
        return []
    if ids.dtype.kind not in "iu" or ids.ndim != 2 or (ids.size and ids.min() < 0):
        raise InputError(f"{source}: `input_ids` is {_form(ids)}: give (N, T) integers, none below 0.")
    mask = arrays.get("attention_mask", np.ones_like(ids))
    if mask.shape != ids.shape:
        raise InputError(f"{source}: `attention_mask` is {_form(mask)} but `input_ids` is {_form(ids)}: make them alike.")
    return [row[keep] for row, keep in zip(ids, mask.astype(bool), strict=True)]


def _labels(arrays: Arrays, source: str) -> list[dict[str, str]]:
    labels = arrays.get("labels")
    if labels is None:
        return []
    n = len(arrays.get("images", arrays.get("input_ids", ())))
    if labels.shape != (n,) or labels.dtype.kind not in "iuUSb":
        raise InputError(f"{source}: `labels` is {_form(labels)}: give ({n},) integers or strings.")
    return [{"class": name} for name in _names(labels, arrays.get("class_names"), source)]


def _names(labels: np.ndarray, class_names: np.ndarray | None, source: str) -> list[str]:
    if class_names is None or labels.dtype.kind in "US":
        return [_string(label) for label in labels.tolist()]
    if class_names.ndim != 1:
        raise InputError(f"{source}: `class_names` is {_form(class_names)}: give one name per class.")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise InputError(
            f"{source}: `labels` run from {labels.min()} to {labels.max()}, but there are {len(class_names)} "
            f"`class_names`: name every class."
        )
    return [_string(class_names[label].item()) for label in labels]


def _string(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _form(array: np.ndarray) -> str:
    return f"{array.shape} {array.dtype}"
