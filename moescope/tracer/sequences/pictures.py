"""Pictures, and some frames of films, that sequences speak of: small, so that pages can lay their tokens over them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...inputs import thumbnail

FRAMES = 32  # of a film that are kept
Columns = dict[str, list[Any]]


def kept_pictures(begun: Sequence[tuple[int, Any]], most: int) -> Columns:
    """Rows of table `pictures` for sequences that begin (key, what is known of it), `most` at the most."""
    found: Columns = {name: [] for name in ("sequence", "medium", "frame", "view", "height", "width", "file")}
    for key, info in begun:
        for (name, frame, view), pixels in _pixels(info):
            if len(found["file"]) >= most:
                return found
            row = (int(key), name, frame, view, pixels.shape[0], pixels.shape[1], thumbnail(pixels))
            for column, value in zip(found.values(), row):
                column.append(value)
    return found


def _pixels(info: Any) -> Iterator[tuple[tuple[str, int | None, str | None], np.ndarray]]:
    """Pictures of a sequence by medium, frame and view: as the model saw them where that is known, else as they were given.

    Of a film those that the model's own frames begin with.
    """
    seen: dict[str, int] = {}
    for medium in info.media:
        number = seen[medium.kind] = seen.get(medium.kind, -1) + 1
        name = f"{medium.kind} {number}"
        own = [(key, pixels) for key, pixels in info.shown.items() if key[0] == name]
        if own:
            yield from own[:FRAMES]
        elif medium.kind == "image":
            yield (name, None, None), medium.pixels()
        elif medium.kind == "video":
            frames, count = medium.pixels(), _frames(info, number)
            yield from (((name, f, None), frames[f * len(frames) // count]) for f in range(min(count, FRAMES)))


def _frames(info: Any, number: int) -> int:
    """How many frames a film's tokens have."""
    pieces = info.pieces
    if pieces is None:
        return 1
    own = pieces.frame[(pieces.unit == 2) & (pieces.medium == number)]
    return int(own.max()) + 1 if own.size and own.max() >= 0 else 1
