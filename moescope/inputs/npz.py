"""NumPy archives: `images` (N, H, W[, C]) uint8 with optional `labels` (N,) and `class_names`,
or `input_ids` (N, T) integers with an optional `attention_mask` (N, T) that says which are no padding.
"""

from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from moescope.errors import InputError
from moescope.inputs._options import Options
from moescope.inputs._types import Example

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
    return of_arrays(_load(path, source), options, source)


def of_arrays(arrays: Arrays, options: Options, source: str) -> Iterator[Example]:
    """One example per row of arrays of these names."""
    options.report.skip(source, "arrays of unknown names", len(arrays.keys() - KNOWN))
    if ("images" in arrays) == ("input_ids" in arrays):
        raise InputError(
            f"{source} holds the arrays {', '.join(arrays) or '(none)'}: "
            f"give either `images` (N, H, W[, C], uint8) or `input_ids` (N, T, integers)."
        )
    labels = _labels(arrays, source)
    for row, image in enumerate(_images(arrays, source)):
        yield Example(source, row, f"{source}:{row}", image=image, labels=labels[row] if labels else {})
    for row, ids in enumerate(_ids(arrays, source)):
        yield Example(source, row, f"{source}:{row}", input_ids=ids, labels=labels[row] if labels else {})


def _load(path: Path, source: str) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, BadZipFile, EOFError, TypeError, AttributeError) as error:
        if "pickle" in str(error).lower():
            raise InputError(
                f"{source} holds pickled objects, which moescope does not load because they can run code: "
                f"save plain arrays of numbers or strings."
            ) from error
        raise InputError(f"{source} is not an .npz archive ({error}): write it with numpy.savez.") from error


def _images(arrays: Arrays, source: str) -> np.ndarray | list[np.ndarray]:
    images = arrays.get("images")
    if images is not None and (images.dtype != np.uint8 or images.ndim not in (3, 4)):
        raise InputError(f"{source}: `images` is {_form(images)}: give (N, H, W) or (N, H, W, C) uint8.")
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
