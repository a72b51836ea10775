"""Where the rows of a picture lie: patches by frame, row and column, and class tokens, padding and text around them.

By the model's own numbers alone: the shape of pixels or latents and the patch size of its configuration (or of the convolution
that cuts patches), the sizes that it is handed (`img_shapes`, `img_sizes`), how many rows a picture takes in it (`max_seq`).
What these do not explain is not known: such a row is a patch, or a row, without frame, y and x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt, prod
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ...routers.calls import signature

if TYPE_CHECKING:
    from .streams import Frame

Grid = tuple[int, int, int]
"""Frames, patches down, patches across."""

KINDS = ("patch", "text", "cls")
SIZES = "sizes"  # the fact that holds patches down and across of every sequence
_FRAMES = ("patch_size_t", "tubelet_size", "temporal_patch_size")
_LEAD = 16  # class and register tokens before the patches of pixels
_sizes: "WeakKeyDictionary[nn.Module, tuple[int, ...] | None]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Layout:
    """Of every sequence of a batch: `lead` rows of a kind, patches grid by grid, padding up to `slots`, and text."""

    places: int
    slots: int  # places of the picture and of what stands before it
    grids: tuple[tuple[Grid, ...], ...] | None  # of every sequence, or one for all; () where not known; None: handed on (SIZES)
    lead: int = 0
    leads: str = "cls"
    counts_frames: bool = False
    joint: bool = False  # blocks of one forward see the same patches with and without the text behind them

    @property
    def known(self) -> bool:
        """Whether anything says where a patch lies."""
        return self.grids is None or any(self.grids)


@dataclass(frozen=True)
class Placed:
    """(sequences, places) each: what a place is (number in KINDS, -1 for padding); frame, y and x of a patch, else -1."""

    kind: np.ndarray
    frame: np.ndarray
    y: np.ndarray
    x: np.ndarray


def placed(layout: Layout, sequences: int, facts: Mapping[str, np.ndarray]) -> Placed:
    """What every place of a batch is; facts: what the layout handed on."""
    if layout.grids is not None:
        return _placed(layout, sequences)
    sizes = facts[SIZES].reshape(-1, facts[SIZES].shape[-1])
    return _of(layout, [((1, int(size[-2]), int(size[-1])),) for size in sizes], sequences)


@lru_cache(maxsize=32)
def _placed(layout: Layout, sequences: int) -> Placed:
    assert layout.grids is not None
    return _of(layout, list(layout.grids), sequences)


def _of(layout: Layout, grids: list[tuple[Grid, ...]], sequences: int) -> Placed:
    if len(grids) != sequences:  # one for all
        one = _sequence(layout, grids[0] if grids else ())
        return Placed(*(np.broadcast_to(column, (sequences, layout.places)) for column in one.T))
    each = np.stack([_sequence(layout, own) for own in grids]) if grids else np.empty((0, layout.places, 4), int)
    return Placed(*np.moveaxis(each, -1, 0))


def _sequence(layout: Layout, grids: tuple[Grid, ...]) -> np.ndarray:
    """(places, 4) kind, frame, y and x."""
    found = np.full((layout.places, 4), -1)
    lead, slots = layout.lead, layout.slots
    found[:lead, 0], found[slots:, 0] = KINDS.index(layout.leads), KINDS.index("text")
    count = sum(prod(grid) for grid in grids)
    if not 0 < count <= slots - lead:
        found[lead:slots, 0] = 0
        return found
    cells = np.concatenate([_cells(grid, number) for number, grid in enumerate(grids)])
    found[lead : lead + count, 0], found[lead : lead + count, 1:] = 0, cells
    if not layout.counts_frames:
        found[:, 1] = -1
    return found


def _cells(grid: Grid, first: int) -> np.ndarray:
    """(patches, 3) frame, y and x, row by row; a sequence's second picture begins at frame 1."""
    return np.stack([axis.reshape(-1) for axis in np.indices(grid)], 1) + np.array([first, 0, 0])


def layout_of(frame: "Frame", pixels: Tensor, rows: int, before: str = "") -> tuple[Layout, dict[str, Tensor]] | None:
    """How so many rows of a call that was given pixels or latents (B, ...) lie, and facts to hand on; None where nothing says.

    `before`: what a contract puts before the patches (text).
    """
    batch, noisy = pixels.shape[0], frame.inputs.get("pixel_values") is not pixels
    if pixels.dim() < 3 or rows <= 0 or batch == 0 or rows % batch:
        return None
    places = rows // batch
    if _pads(frame.module):
        return _padded(frame, pixels, places)
    if pixels.dim() == 3:
        return _told(frame, pixels, places)
    if pixels.dim() == 5:
        return _video(frame, pixels, places, before)
    if pixels.dim() == 4:
        layout = _image(frame.module, pixels, places, noisy)
        return None if noisy and not layout.known else (layout, {})
    return None


def _pads(module: nn.Module) -> bool:
    """Whether a model pads pictures that are no squares and puts text behind them (HiDream)."""
    return isinstance(getattr(module, "max_seq", None), int) and "hidden_states_masks" in signature(module).parameters


def _padded(frame: "Frame", pixels: Tensor, places: int) -> tuple[Layout, dict[str, Tensor]] | None:
    """Patches of one size each up to `max_seq`, unless pictures are squares; or packed already, with their sizes."""
    sizes, facts = frame.inputs.get("img_sizes"), {}
    grids: tuple[tuple[Grid, ...], ...] | None
    if pixels.dim() == 3:
        slots = pixels.shape[1]
        if torch.is_tensor(sizes):
            grids, facts = None, {SIZES: sizes}
        else:
            grids = tuple(((1, int(down), int(across)),) for down, across in sizes or [])
    else:
        size: Any = patch_size(frame.module, 2) or (0, 0)
        down, across = (n // p if p else 0 for n, p in zip(pixels.shape[-2:], size))
        slots = down * across if pixels.shape[-2] == pixels.shape[-1] else frame.module.max_seq  # type: ignore[assignment]
        grids = (((1, down, across),),)
    if places < slots or slots == 0:
        return None
    return Layout(places, slots, grids, joint=True), facts


def _told(frame: "Frame", packed: Tensor, places: int) -> tuple[Layout, dict[str, Tensor]] | None:
    """Packed latents (B, S, C) beside the shapes of the pictures (frames, down, across): one, one a sequence, or several."""
    shapes = frame.inputs.get("img_shapes")
    if places != packed.shape[1] or not isinstance(shapes, list | tuple) or not shapes:
        return None
    listed = [shapes] if not isinstance(shapes[0], list | tuple) else list(shapes)
    each = tuple(tuple(own if isinstance(own[0], list | tuple) else [own]) for own in listed)
    if any(len(grid) != 3 or not all(isinstance(n, int) for n in grid) for own in each for grid in own):
        return None
    fits = tuple(tuple((t, h, w) for t, h, w in own) if sum(map(prod, own)) == places else () for own in each)
    return Layout(places, places, fits if len(fits) == len(packed) else fits[:1], counts_frames=True), {}


def _video(frame: "Frame", latents: Tensor, places: int, before: str) -> tuple[Layout, dict[str, Tensor]] | None:
    """Latents (B, F, C, H, W) or (B, C, F, H, W), of which the model says how many channels it takes."""
    channels, size = _channels(frame.module), patch_size(frame.module, 3)
    if size is None or channels not in latents.shape[1:3]:
        return None
    frames = latents.shape[2] if latents.shape[1] == channels else latents.shape[1]
    grid = frames // size[0], latents.shape[-2] // size[1], latents.shape[-1] // size[2]
    text: Any = frame.inputs.get("encoder_hidden_states")
    lead = places - prod(grid)
    if prod(grid) == 0 or (lead and not (before and torch.is_tensor(text) and text.shape[1] == lead)):
        return None
    return Layout(places, places, ((grid,),), lead, before or "cls", counts_frames=True), {}


def _image(module: nn.Module, pixels: Tensor, places: int, noisy: bool) -> Layout:
    """Latents (B, C, H, W) in patches; or pixels, whose patches may be merged and stand behind class tokens."""
    for down, across in _grids(module, int(pixels.shape[-2]), int(pixels.shape[-1]), places, (1,) if noisy else (1, 2, 4, 8)):
        lead = places - down * across
        if down * across and 0 <= lead <= (0 if noisy else _LEAD):
            return Layout(places, places, (((1, down, across),),), lead)
    return Layout(places, places, ())


def _grids(module: nn.Module, height: int, width: int, places: int, merges: tuple[int, ...]) -> list[tuple[int, int]]:
    size = patch_size(module, 2)
    if size is not None:
        return [(height // size[0] // merge, width // size[1] // merge) for merge in merges]
    side = isqrt(places)
    return [(side, side)] if height == width and side and height % side == 0 else []


def patch_size(module: nn.Module, axes: int) -> tuple[int, ...] | None:
    """(down, across), or with 3 axes (frames, down, across) of a patch, by configuration or the convolution that cuts it."""
    config = getattr(module, "config", None)
    for owner in (getattr(config, "vision_config", None), config):
        size = getattr(owner, "patch_size", None)
        if isinstance(size, int) and size > 0:
            frames = next((n for name in _FRAMES if isinstance(n := getattr(owner, name, None), int)), 1)
            return (frames, size, size)[3 - axes :]
        if isinstance(size, list | tuple) and len(size) >= axes:
            return tuple(int(n) for n in size)[len(size) - axes :]
    return _cut(module, axes)


def _cut(module: nn.Module, axes: int) -> tuple[int, ...] | None:
    """The kernel of a model's only convolution that takes so many axes in steps of its own size."""
    if module not in _sizes:
        kernels = {
            m.kernel_size for m in module.modules() if isinstance(m, nn.Conv2d | nn.Conv3d) and m.kernel_size == m.stride
        }
        kernels = {kernel for kernel in kernels if prod(kernel) > 1}
        _sizes[module] = next(iter(kernels)) if len(kernels) == 1 else None
    found = _sizes[module]
    return None if found is None or len(found) > axes else (1,) * (axes - len(found)) + found


def _channels(module: nn.Module) -> int | None:
    config = getattr(module, "config", None)
    names = ("in_channels", "num_channels")
    said = next((n for name in names if isinstance(n := getattr(config, name, None), int)), None)
    if said is None:
        first = next((m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None)
        said = None if first is None else first.in_channels
    return said
