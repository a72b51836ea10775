"""What a processor said of the tokens of prompts: which are pieces of pictures, video and sound, and where in them they lie."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .named import Named


def told_pieces(named: Named, row: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """(tokens,) unit, frame, y and x; unit -1 where nothing is said. None where nothing is said of any.

    Frames are labels that come with the sequence, and so they are -1 here.
    """
    infos = named.live.infos
    if named.packed is not None or not any(getattr(info, "pieces", None) is not None for info in infos):
        return None
    found = tuple(np.full(len(row), -1) for _ in range(4))
    position = named.position[row, place] - named.live.since[row]
    for number, info in enumerate(infos):
        if info.pieces is None:
            continue
        here = (row == number) & (position >= 0) & (position < len(info.pieces))
        at = position[here]
        for column, values in ((0, info.pieces.unit), (2, info.pieces.y), (3, info.pieces.x)):
            found[column][here] = values[at]
        behind = (row == number) & (position >= len(info.pieces))
        found[0][behind] = 0
    return found


def of_pictures(infos: Sequence[Any], size: int) -> list[Any]:
    """What is known of the pictures and films of texts, one for each, where a tower sees so many of them; else the texts' own."""
    if not any(info.media for info in infos):
        return list(infos)
    bare = {"text": None, "words": (), "word_labels": (), "token_labels": {}, "made_labels": {}, "pieces": None, "shown": {}}
    each = [replace(info, media=(medium,), **bare) for info in infos for medium in info.media if medium.kind != "audio"]
    return each if len(each) == size else []
