"""Which tokens are pieces of images, videos or sound, and where in the picture they lie.

In text: the vocabulary ids that the model's own configuration keeps for them, and the grids that its processor hands to it
(`image_grid_thw`, `image_sizes`, the pixels' shape and the patch size). In vision towers and denoisers: what layouts.py says,
or `grid_thw`, where patches come in blocks that are merged later. A place that nothing says is null, never guessed from a count
that another grid explains as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from .generating import GRIDS, Call
from .layouts import KINDS, patch_size, placed

if TYPE_CHECKING:
    from .streams import Stream

UNITS = ("text", "image", "video", "audio")
_TYPES = ("mm_token_type_ids", "moe_mm_token_type_ids")
_known: "WeakKeyDictionary[nn.Module, dict[str, int]]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Cells:
    """(N,) each: unit (number in UNITS), frame, y and x of places; -1 where it has none."""

    unit: np.ndarray
    frame: np.ndarray
    y: np.ndarray
    x: np.ndarray


def image_facts(calls: list[Any], shape: tuple[int, int], call: Call | None) -> tuple[dict[str, int], int, dict[str, Tensor]]:
    """Ids that stand for images and the like, patches across that become one token, and the grids as they were given."""
    media = next((found for found in (_media(f.module) for f in reversed(calls)) if found), {})
    facts: dict[str, Any] = _given(calls, (*_TYPES, *(GRIDS if media else ())), shape)
    if not media and not facts:
        return {}, 1, {}
    config = getattr(calls[-1].module, "config", None)
    vision = getattr(config, "vision_config", None)
    merge = next((n for c in (vision, config) if isinstance(n := getattr(c, "spatial_merge_size", None), int)), 1)
    pixels = [tuple(p.shape) for f in calls if torch.is_tensor(p := f.inputs.get("pixel_values")) and p.dim() > 3]
    if call is not None and shape[1] > 1:
        facts = {n: v for n, v in call.pictures.items() if n in GRIDS} | facts
        pixels += [call.pictures["pixels"]] if "pixels" in call.pictures else []
    size = patch_size(calls[-1].module, 2)
    if size is not None and "image_sizes" in facts:
        facts["patch"] = torch.tensor(size)
    if size is not None and pixels:
        facts["pixels"] = torch.tensor([pixels[0][-2] // size[0], pixels[0][-1] // size[1]])
    return media, merge, facts


def _given(calls: list[Any], names: tuple[str, ...], shape: tuple[int, int]) -> dict[str, Tensor]:
    """Tensors of these names that the outermost call was given; kinds of places only in the shape of the places."""
    found: dict[str, Tensor] = {}
    for f in calls:
        found |= {n: v for n in names if torch.is_tensor(v := f.inputs.get(n)) and (n in GRIDS or tuple(v.shape) == shape)}
    return found


def in_text(media: Mapping[str, int], merge: int, ids: np.ndarray | None, arrays: Mapping[str, np.ndarray]) -> Cells | None:
    """What the places (B × Q) of a text are; None where all are text."""
    unit = _units(media, ids, arrays)
    if unit is None or not unit.any():
        return None
    flat = unit.reshape(-1)
    frame, y, x = (np.full(flat.size, -1) for _ in range(3))
    for number, name in ((1, "image"), (2, "video")):
        there = np.nonzero(flat == number)[0]
        cells = _cells(name, (unit == number).sum(1), merge, arrays)
        if cells is not None:
            y[there], x[there] = cells[:, 1], cells[:, 2]
            if name == "video":
                frame[there] = cells[:, 0]
        elif name == "image":
            _runs(unit, number, y, x, arrays.get("pixels"))
    return Cells(flat, frame, y, x)


def in_blocks(grids: np.ndarray, merge: int, rows: int, patches: int) -> np.ndarray | None:
    """(rows, 4) image, frame, y and x of patches that come image by image, in blocks of merge × merge unless merged already."""
    block = merge if rows == patches else 1
    divide = 1 if rows == patches else merge
    found = [
        np.insert(_blocked(t, h // divide, w // divide, block), 0, number, axis=1) for number, (t, h, w) in enumerate(grids)
    ]
    cells = np.concatenate(found)
    return cells if len(cells) == rows else None


def sizes(stream: "Stream", arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Patches down and across, of images; null where that is not known."""
    import pyarrow as pa

    if "grid" in arrays:
        divide = 1 if int(arrays["patches"]) == stream.shape[1] else stream.merge
        return {"height": arrays["grid"][:, 1] // divide, "width": arrays["grid"][:, 2] // divide}
    if stream.layout is None or not stream.layout.known:
        return {}
    where = placed(stream.layout, stream.shape[0], arrays)
    most = {"height": where.y.max(1), "width": where.x.max(1)}
    return {name: pa.array(last + 1, pa.int32(), mask=last < 0) for name, last in most.items()}


def patches(stream: "Stream", row: np.ndarray, place: np.ndarray, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the places of pictures are, and where a patch lies; `frame` is -1 where the model counts none."""
    import pyarrow as pa

    kind, frame, y, x = (np.full(len(place), n) for n in (0, -1, -1, -1))
    if "grid" in arrays:
        cells = in_blocks(arrays["grid"], stream.merge, stream.shape[1], int(arrays["patches"]))
        if cells is not None:
            y, x = cells[place, 2], cells[place, 3]
            frame = cells[place, 1] if (arrays["grid"][:, 0] > 1).any() else frame
    elif stream.layout is not None:
        where = placed(stream.layout, stream.shape[0], arrays)
        kind, frame, y, x = (a[row, place] for a in (where.kind, where.frame, where.y, where.x))
    return {
        "unit": [KINDS[n] for n in kind],
        "frame": frame,
        "y": pa.array(y, pa.int32(), mask=y < 0),
        "x": pa.array(x, pa.int32(), mask=x < 0),
        "special": kind == KINDS.index("cls"),
    }


def _blocked(frames: int, down: int, across: int, block: int) -> np.ndarray:
    if down % block or across % block:
        block = 1
    y, x = np.meshgrid(np.arange(down), np.arange(across), indexing="ij")
    order = [a.reshape(down // block, block, across // block, block).transpose(0, 2, 1, 3).reshape(-1) for a in (y, x)]
    frame = np.repeat(np.arange(frames), down * across)
    return np.stack([frame, *(np.tile(o, frames) for o in order)], 1)


def _media(module: nn.Module) -> dict[str, int]:
    if module not in _known:
        config = getattr(module, "config", None)
        named = [(u, getattr(config, f"{u}_token_{end}", None)) for u in UNITS[1:] for end in ("index", "id")]
        _known[module] = {unit: value for unit, value in named if isinstance(value, int)}
    return _known[module]


def _units(media: Mapping[str, int], ids: np.ndarray | None, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    types = next((arrays[name] for name in _TYPES if name in arrays), None)
    if ids is None or not media:
        return types
    unit = np.zeros(ids.shape, np.int8)
    for number, name in enumerate(UNITS):
        if name in media:
            unit[ids == media[name]] = number
    return unit


def _cells(name: str, counts: np.ndarray, merge: int, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(tokens, 3) frame, y and x from the grids handed in, if they explain so many tokens of every row; rows may be beams."""
    grids, count = arrays.get(f"{name}_grid_thw"), int(counts.sum())
    if grids is None and name == "image" and "image_sizes" in arrays and "patch" in arrays:
        grids = np.insert(arrays["image_sizes"].reshape(-1, 2) // arrays["patch"], 0, 1, axis=1)
    if grids is None or not count:
        return None
    for step in (merge,) if merge > 1 else (1, 2, 3, 4):
        for frames in (1, 2) if name == "video" else (1,):
            small = grids // np.array([frames, step, step])
            total = int(small.prod(1).sum())
            if total and count % total == 0:
                return _repeated(np.concatenate([_blocked(t, h, w, 1) for t, h, w in small]), counts, count // total)
    return None


def _repeated(cells: np.ndarray, counts: np.ndarray, times: int) -> np.ndarray | None:
    """Cells of every row, where each text stands in so many rows one after another."""
    own = counts[::times]
    if times > 1 and (len(counts) % times or not np.array_equal(np.repeat(own, times), counts)):
        return None
    ends = np.cumsum(own)
    return np.concatenate([np.tile(cells[end - n : end], (times, 1)) for end, n in zip(ends, own)])


def _runs(unit: np.ndarray, number: int, y: np.ndarray, x: np.ndarray, pixels: np.ndarray | None) -> None:
    """Places within every run of image tokens that is the whole grid of the pixels; a count alone says nothing of a grid."""
    width = unit.shape[1]
    for row in range(len(unit)):
        edges = np.diff(np.concatenate([[0], unit[row] == number, [0]]).astype(np.int8))
        for first, end in zip(np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0]):
            across = _across(int(end - first), pixels)
            if across:
                y[row * width + first : row * width + end] = np.arange(end - first) // across
                x[row * width + first : row * width + end] = np.arange(end - first) % across


def _across(count: int, pixels: np.ndarray | None) -> int | None:
    if pixels is None:
        return None
    down, across = (int(n) for n in pixels)
    return next((across // m for m in (1, 2, 3, 4, 7, 8) if (down // m) * (across // m) == count), None)
