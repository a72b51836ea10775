"""Pictures as a model sees them, where its processor crops, pads or cuts them: made again from the pixels handed over."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...inputs import Medium
from .places import UNITS, VIEWS, Pieces, array

Key = tuple[str, int | None, str | None]
"""Medium, frame of a film, view of a picture that is cut into tiles."""


def shown(processor: Any, batch: Any, told: Sequence[tuple[Pieces, Sequence[Medium]]]) -> list[dict[Key, np.ndarray]]:
    """{medium, frame, view: (H, W, 3) uint8} of every record of a batch; nothing where pixels are no pictures of one size."""
    none: list[dict[Key, np.ndarray]] = [{} for _ in told]
    pixels, part = batch.get("pixel_values"), getattr(processor, "image_processor", None)
    if (
        part is None
        or pixels is None
        or pixels.dim() != 4
        or not (getattr(part, "do_normalize", False) and getattr(part, "do_rescale", False))
    ):
        return none
    total = sum(int(np.isin(pieces.unit, (1, 2)).sum()) for pieces, _ in told)
    if pixels.shape[0] == 0 or total % pixels.shape[0]:
        return none
    plain = array(pixels.float()).transpose(0, 2, 3, 1) * np.asarray(part.image_std) + np.asarray(part.image_mean)
    tiles = iter((plain.clip(0, 1) * 255).round().astype(np.uint8))
    return [dict(_of_record(pieces, media, tiles, total // pixels.shape[0])) for pieces, media in told]


def _of_record(
    pieces: Pieces, media: Sequence[Medium], tiles: Iterator[np.ndarray], each: int
) -> Iterator[tuple[Key, np.ndarray]]:
    seen: dict[str, int] = {}
    for medium in media:
        if medium.kind == "audio":
            continue
        number = seen[medium.kind] = seen.get(medium.kind, -1) + 1
        name, mine = f"{medium.kind} {number}", (pieces.unit == UNITS.index(medium.kind)) & (pieces.medium == number)
        own = [next(tiles) for _ in range(int(mine.sum()) // each)]
        if not mine.any() or (pieces.y[mine] < 0).any():
            continue
        if medium.kind == "video":
            yield from (((name, frame, None), tile) for frame, tile in enumerate(own))
        elif len(own) == 1:
            yield (name, None, None), own[0]
        else:
            yield (name, None, "overview"), own[-1]
            yield (name, None, "tiles"), _joined(own[:-1], _across(pieces, mine))


def _across(pieces: Pieces, mine: np.ndarray) -> int:
    """Tiles across, by the places of their tokens beside those of the overview."""
    whole = mine & (pieces.view == VIEWS.index("tiles"))
    one = mine & (pieces.view == VIEWS.index("overview"))
    return int((pieces.x[whole].max() + 1) // (pieces.x[one].max() + 1))


def _joined(tiles: list[np.ndarray], across: int) -> np.ndarray:
    rows = [np.concatenate(tiles[first : first + across], axis=1) for first in range(0, len(tiles), across)]
    return np.concatenate(rows)
