"""Which tokens of a prompt are pieces of which picture, video or sound, and where in it they lie.

By what the processor itself says: which of its words became which tokens (`text_replacement_offsets`), and the grids and pixels
that it hands to the model. A place that nothing says (queries of a resampler, say) is null.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from .processor import KINDS, Asked, array, token_of

UNITS = ("text", *KINDS)
VIEWS = ("", "overview", "tiles")


@dataclass(frozen=True)
class Pieces:
    """(tokens,) each: unit (number in UNITS); the medium's number among those of its kind; frame, y, x; view (number in VIEWS).

    -1 where there is none. A picture that is cut into tiles has its y and x in the whole mosaic, and apart from it an overview.
    """

    unit: np.ndarray
    medium: np.ndarray
    frame: np.ndarray
    y: np.ndarray
    x: np.ndarray
    view: np.ndarray

    @classmethod
    def text(cls, tokens: int) -> "Pieces":
        """Of text alone."""
        medium, frame, y, x = np.full((4, tokens), -1)
        return cls(np.zeros(tokens, np.int8), medium, frame, y, x, np.zeros(tokens, np.int8))

    def __len__(self) -> int:
        return len(self.unit)


def pieces(processor: Any, config: Any, asked: Asked, batch: Any) -> Pieces:
    """Of one record that was asked alone, with offsets."""
    ids = array(batch["input_ids"])[0]
    found, own = Pieces.text(len(ids)), media_ids(config, processor)
    spans = _spans(asked, ids, batch, own)
    counts = {kind: [len(places) for k, _, places in spans if k == kind] for kind in KINDS}
    facts = _Facts(processor, config, batch, counts, asked)
    for kind, number, places in spans:
        found.unit[places], found.medium[places] = UNITS.index(kind), number
        cells = facts.cells(kind, number, ids, places)
        if cells is not None:
            for column, values in zip((found.frame, found.y, found.x, found.view), cells.T):
                column[places] = values
    return found


def media_ids(config: Any, processor: Any = None) -> dict[str, set[int]]:
    """{kind: vocabulary ids that stand for its pieces}, by the model's configuration, else by the processor."""
    found: dict[str, set[int]] = {}
    for kind in KINDS:
        names = (f"{kind}_token_id", f"{kind}_token_index")
        values = [v for owner in _owners(config) for n in names if isinstance(v := getattr(owner, n, None), int)]
        values = values or [v for n in names[:1] if isinstance(v := getattr(processor, n, None), int)]
        if values:
            found[kind] = set(values)
    return found


def _owners(config: Any) -> list[Any]:
    inner = [getattr(config, name, None) for name in ("thinker_config", "text_config")]
    return [owner for owner in (config, *inner) if owner is not None]


def _spans(asked: Asked, ids: np.ndarray, batch: Any, own: dict[str, set[int]]) -> list[tuple[str, int, np.ndarray]]:
    """(kind, number of the medium, places of its tokens) of every medium, in the order of the text."""
    known = np.array(sorted(set().union(*own.values())), np.int64)
    piece = np.isin(ids, known)
    replaced = batch.get("text_replacement_offsets") or [[]]
    found, seen = [], dict.fromkeys(KINDS, 0)
    if not replaced[0] or "offset_mapping" not in batch:
        return _by_runs(asked, ids, own)
    offsets = array(batch["offset_mapping"])[0]
    for one in replaced[0]:
        kind, (start, end) = one["type"], one["new_span"]
        inside = (offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
        found.append((kind, seen[kind], np.nonzero(inside & piece)[0]))
        seen[kind] += 1
    return found


def _by_runs(asked: Asked, ids: np.ndarray, own: dict[str, set[int]]) -> list[tuple[str, int, np.ndarray]]:
    """By runs of the ids that stand for a kind, where there are as many as media; else the media of a kind together, if one."""
    found = []
    for kind, values in own.items():
        places, count = np.nonzero(np.isin(ids, sorted(values)))[0], len(asked.of(kind))
        runs = np.split(places, np.nonzero(np.diff(places) > 1)[0] + 1) if len(places) else []
        runs = runs if len(runs) == count else [places] * min(count, 1) if count == 1 else []
        found += [(kind, number, run) for number, run in enumerate(runs)]
        if not runs and len(places):
            found.append((kind, -1, places))
    return sorted(found, key=lambda one: int(one[2][0]))


class _Facts:
    """What a batch of one record says of the grids of its media."""

    def __init__(self, processor: Any, config: Any, batch: Any, counts: dict[str, list[int]], asked: Asked) -> None:
        self.processor, self.batch, self.counts, self.asked = processor, batch, counts, asked
        self.vision = next((v for o in _owners(config) if (v := getattr(o, "vision_config", None)) is not None), None)

    def cells(self, kind: str, number: int, ids: np.ndarray, places: np.ndarray) -> np.ndarray | None:
        """(tokens, 4) frame, y, x and view of a medium's tokens; None where nothing says it."""
        if kind == "audio" or number < 0 or not len(places):
            return None
        grids = self.batch.get(f"{kind}_grid_thw")
        if grids is not None:
            return self._by_grid(kind, number, array(grids).reshape(-1, 3))
        return self._by_pixels(kind, number, ids, places)

    def _by_grid(self, kind: str, number: int, grids: np.ndarray) -> np.ndarray | None:
        """A medium has a grid, or several one after the other (pieces of a film)."""
        merge, first = self._merge(kind), 0
        for n, count in enumerate(self.counts[kind]):
            cells, taken = list[np.ndarray](), 0
            while taken < count and first < len(grids):
                frames, down, across = (int(v) for v in grids[first])
                down, across, first = down // merge, across // merge, first + 1
                left = count - taken if len(grids) == len(self.counts[kind]) else None
                kept = _frames(frames, down * across, left)
                cells.append(grid(kept, down, across, len(cells)))
                taken += kept * down * across
            if n == number:
                found = np.concatenate(cells) if cells else np.empty((0, 4), int)
                found[:, 0] = found[:, 0] if kind == "video" else -1
                return found if taken == count else None
        return None

    def _merge(self, kind: str) -> int:
        part = getattr(self.processor, f"{kind}_processor", None)
        for owner, name in ((part, "merge_size"), (self.vision, "spatial_merge_size")):
            if isinstance(found := getattr(owner, name, None), int):
                return found
        return 1

    def _by_pixels(self, kind: str, number: int, ids: np.ndarray, places: np.ndarray) -> np.ndarray | None:
        """Pictures of one size each, of which a medium has one, or one a frame or tile."""
        pixels = self.batch.get("pixel_values")
        shape = () if pixels is None else tuple(pixels.shape)
        total = sum(map(sum, (self.counts["image"], self.counts["video"])))
        if len(shape) != 4 or total % shape[0]:
            return None
        size = _side(shape[2:], self.vision, total // shape[0])
        if size is None or len(places) % (size[0] * size[1]):
            return None
        views = len(places) // (size[0] * size[1])
        if kind == "video" or views == 1:
            found = grid(views, *size, 0)
            found[:, 0] = found[:, 0] if kind == "video" else -1
            return found
        across = self._across(ids, places, number, views)
        return None if across is None else mosaic(views, across, *size)

    def _across(self, ids: np.ndarray, places: np.ndarray, number: int, views: int) -> int | None:
        """Tiles across: by the words between them, else by the rule of the image processor."""
        words = [getattr(self.processor, name, None) for name in ("tile_token", "tile_global_token")]
        if all(isinstance(word, str) for word in words):
            beside, below = self.processor.tokenizer.convert_tokens_to_ids(words)
            between = ids[places[0] : places[-1] + 1].tolist()
            return between[: between.index(below)].count(beside) + 1 if below in between else None
        part = self.processor.image_processor
        rule = getattr(sys.modules[type(part).__module__], "get_optimal_tiled_canvas", None)
        limits = [getattr(part, name, None) for name in ("min_patches", "max_patches")]
        if rule is None or None in limits:
            return None
        height, width = self.asked.of("image")[number].pixels().shape[:2]
        across, down = rule((height, width), (part.size["height"], part.size["width"]), *limits)
        return int(across) if across * down == views - 1 else None


def _frames(frames: int, each: int, tokens: int | None) -> int:
    """Frames that are left of a grid's, where several become one: as many as its tokens say, if a rule of models gives them."""
    if tokens is None:
        return 1
    return next((kept for kept in (frames, -(-frames // 2), 1) if kept * each == tokens), frames)


def _side(pixels: tuple[int, ...], vision: Any, tokens: int) -> tuple[int, int] | None:
    """(down, across) of the tokens of one picture of so many pixels: its patches, merged by a whole number."""
    patch = getattr(vision, "patch_size", None)
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    if not isinstance(patch, int) or not patch:
        return None
    down, across = pixels[0] // patch, pixels[1] // patch
    return next(
        ((down // m, across // m) for m in range(1, 9) if not (down % m or across % m) and down * across == tokens * m * m),
        None,
    )


def grid(frames: int, down: int, across: int, first: int) -> np.ndarray:
    """(tokens, 4) frame, y, x and view, row by row, of frames from number `first` on."""
    cells = np.stack([axis.reshape(-1) for axis in np.indices((frames, down, across))], 1) + np.array([first, 0, 0])
    return np.column_stack([cells, np.zeros(len(cells), int)])


def mosaic(views: int, across: int, down: int, wide: int) -> np.ndarray:
    """(tokens, 4) of tiles, row by row, and of the overview behind them."""
    cells = grid(views, down, wide, 0)
    tile, last = cells[:, 0].copy(), cells[:, 0] == views - 1
    cells[~last, 1] += tile[~last] // across * down
    cells[~last, 2] += tile[~last] % across * wide
    cells[:, 3] = np.where(last, VIEWS.index("overview"), VIEWS.index("tiles"))
    cells[:, 0] = -1
    return cells


__all__ = ["UNITS", "VIEWS", "Pieces", "media_ids", "pieces", "token_of"]
