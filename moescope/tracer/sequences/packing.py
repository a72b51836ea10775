"""Several documents in one row: where each begins.

In this order: `cu_seq_lens_q` (flash attention), `seq_idx`, `position_ids` that start again, a mask of documents' numbers, a
mask of pairs in blocks. A place where positions do not rise begins a document; places that are padding say nothing, so that
whatever stands in them (0, 1) is no document. Positions of three or four axes (images) start again where all axes do.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ENDS = ("cu_seq_lens_q", "cu_seqlens_q", "cu_seqlens", "cu_seq_lens")


def packing_facts(inputs: Mapping[str, Any], shape: tuple[int, int]) -> dict[str, Tensor]:
    """What the outermost call was told of documents, as references."""
    ends = next((inputs[name] for name in _ENDS if torch.is_tensor(inputs.get(name)) and inputs[name].dim() == 1), None)
    found: dict[str, Tensor] = {} if ends is None else {"ends": ends}
    given: Any
    for name, given in (("numbers", inputs.get("seq_idx")), ("positions", inputs.get("position_ids"))):
        if torch.is_tensor(given) and given.shape[-1] == shape[1] and shape[1] > 1:
            found[name] = given
    return found


def documents(
    shape: tuple[int, int], real: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray | None]:
    """(sequences, places) which are no padding after all, and where a document begins (None: one a row)."""
    if not {"ends", "numbers", "positions", "first", "mask"} & arrays.keys() or shape[1] == 1:
        return real, None
    begins = np.zeros(shape, bool)
    if (ends := arrays.get("ends")) is not None and ends[-1] <= real.size:
        flat = begins.reshape(-1)
        flat[ends[:-1][np.diff(ends) > 0]] = True
        real = real & (np.arange(real.size) < ends[-1]).reshape(shape)
    elif (numbers := arrays.get("numbers")) is not None:
        numbers = np.broadcast_to(numbers, shape)
        real = real & (numbers >= 0)
        begins = _changed(numbers, real)
    elif (positions := arrays.get("positions")) is not None:
        begins = _restarts(positions, shape, real)
    elif (mask := arrays.get("mask")) is not None:
        begins = _changed(mask, real) if mask.dtype.kind in "iu" and mask.max(initial=0) > 1 else begins
    elif "first" in arrays:
        begins = _blocks(arrays["first"], arrays["last"], real)
    return real, _if_several(begins, real)


def _if_several(begins: np.ndarray, real: np.ndarray) -> np.ndarray | None:
    """Beginnings moved to the next place that is no padding, and one for every row; None where no row has two."""
    number = np.cumsum(begins, 1)
    number -= np.where(real.any(1), number[np.arange(len(real)), real.argmax(1)], 0)[:, None]
    if not (real & (number > 0)).any():
        return None
    found = _changed(number, real)
    found[np.arange(len(real)), real.argmax(1)] = True
    return found


def _changed(numbers: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Where a number differs from that of the last place that is no padding."""
    begins = np.zeros(real.shape, bool)
    for row in range(len(real)):
        there = np.nonzero(real[row])[0]
        values = numbers[row, there]
        begins[row, there[1:]] = values[1:] != values[:-1]
    return begins


def _restarts(positions: np.ndarray, shape: tuple[int, int], real: np.ndarray) -> np.ndarray:
    axes = positions.reshape(-1, *positions.shape[-2:]) if positions.ndim > 1 else positions[None, None]
    if axes.shape[0] == 4:
        axes = axes[:1]  # the first axis counts text, the others are of images
    axes = np.broadcast_to(axes, (axes.shape[0], *shape))
    begins = np.zeros(shape, bool)
    for row in range(shape[0]):
        there = np.nonzero(real[row])[0]
        values = axes[:, row, there]
        if len(axes) == 1:
            begins[row, there[1:]] = values[0, 1:] <= values[0, :-1]
        elif len(there):
            begins[row, there[1:]] = (values[:, 1:] == values[:, :1]).all(0)
    return begins


def _blocks(first: np.ndarray, last: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Where no query from here on looks before this place, and none before it looks at it or beyond."""
    places = first.shape[1]
    first, last = np.where(real, first, places), np.where(real, last, -1)
    low = np.minimum.accumulate(first[:, ::-1], 1)[:, ::-1]
    high = np.maximum.accumulate(last, 1)
    begins = low >= np.arange(places)
    begins[:, 1:] &= high[:, :-1] < np.arange(1, places)
    return begins & real
