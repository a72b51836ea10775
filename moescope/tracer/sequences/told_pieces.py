"""What a processor said of the tokens of prompts: which are pieces of pictures, video and sound, and where in them they lie."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .image_patches import Cells
from .named import Named

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""(tokens,) each: unit (number in image_patches.UNITS), frame, y and x; -1 where there is none."""


def told_or_placed(cells: Cells | None, named: Named, row: np.ndarray, place: np.ndarray) -> Columns | None:
    """What tokens at these rows and places are: by the processor where it was asked, else by what the model was handed.

    None where all are text, as far as anything says.
    """
    told = _told(named, row, place)
    if cells is None:
        return None if told is None else (np.maximum(told[0], 0), told[1], told[2], told[3])
    where = row * named.real.shape[1] + place
    placed = cells.unit[where], cells.frame[where], cells.y[where], cells.x[where]
    if told is None:
        return placed
    said = told[0] >= 0
    unit, frame, y, x = (np.where(said, one, other) for one, other in zip(told, placed))
    return unit, frame, y, x


def _told(named: Named, row: np.ndarray, place: np.ndarray) -> Columns | None:
    """(tokens,) unit, frame, y and x; unit -1 where nothing is said. None where nothing is said of any.

    Frames are labels that come with the sequence, and so they are -1 here.
    """
    infos = named.live.infos
    if named.packed is not None or not any(getattr(info, "pieces", None) is not None for info in infos):
        return None
    unit, frame, y, x = (np.full(len(row), -1) for _ in range(4))
    position = named.position[row, place] - named.live.since[row]
    for number, info in enumerate(infos):
        if info.pieces is None:
            continue
        here = (row == number) & (position >= 0) & (position < len(info.pieces))
        at = position[here]
        unit[here], y[here], x[here] = info.pieces.unit[at], info.pieces.y[at], info.pieces.x[at]
        unit[(row == number) & (position >= len(info.pieces))] = 0
    return unit, frame, y, x


def of_pictures(infos: Sequence[Any], size: int) -> list[Any]:
    """What is known of pictures and films of texts, one for each, where a tower sees so many; else the texts' own."""
    if not any(info.media for info in infos):
        return list(infos)
    bare: dict[str, Any] = {
        "text": None,
        "words": (),
        "word_labels": (),
        "token_labels": {},
        "made_labels": {},
        "pieces": None,
        "shown": {},
    }
    each = [replace(info, media=(medium,), **bare) for info in infos for medium in info.media if medium.kind != "audio"]
    return each if len(each) == size else []
