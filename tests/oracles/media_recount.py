"""What every token of a text with media is, recounted from what a family's own processor gives, without moescope.

A token is (unit, medium, frame, y, x, view). Placeholder ids are the tokenizer's; places come from the grids that the processor
hands to the model, or, where it hands none, from the size in patches of what the pictures of `PICTURES` become.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

Token = tuple[str, int | None, int | None, int | None, int | None, str | None]
TEXT: Token = ("text", None, None, None, None, None)
MERGE = 2  # patches across that become one token, in every family with grids
PICTURES = {"wide": (24, 40), "tall": (32, 20), "small": (16, 16)}  # pixels down, across
# tiles down and across of the same pictures, by the rules of the two families that cut them (literal, from their papers' code)
TILES = {
    "llama4": {"wide": (2, 2), "tall": (2, 2), "small": (1, 1)},
    "internvl": {"wide": (2, 3), "tall": (3, 2), "small": (1, 1)},
}
SIDE = 2  # tokens down and across of a tile


def recounted(family: str, kind: str, ids: list[int], batch: dict[str, Any], names: list[str]) -> list[Token]:
    """Of one record that holds media of one kind; `names` of its pictures."""
    places = _places(family, kind, batch, names)
    found, own = [], piece_ids(family, kind)
    for one in ids:
        found.append(next(places) if one in own else TEXT)
    assert next(places, None) is None, "the grids have more places than the text has placeholders"
    return found


def piece_ids(family: str, kind: str) -> set[int]:
    """Vocabulary ids of pieces: <image> 259, <video> 260, <audio> 261, <|patch|> 268."""
    if family == "llama4":
        return {268}
    if kind == "video" and family in ("glm4v_moe", "internvl"):
        return {259}  # they write the frames of a film as pictures
    return {{"image": 259, "video": 260, "audio": 261}[kind]}


def _places(family: str, kind: str, batch: dict[str, Any], names: list[str]) -> Iterator[Token]:
    if kind == "audio":
        lengths = [int(mask.sum()) for mask in np.asarray(batch["feature_attention_mask"])]
        for number, length in enumerate(lengths):
            yield from [("audio", number, None, None, None, None)] * heard(length)
    elif f"{kind}_grid_thw" in batch:
        for number, (frames, down, across) in enumerate(np.asarray(batch[f"{kind}_grid_thw"]).tolist()):
            frames = frames // 2 if family == "ernie4_5_vl_moe" and kind == "video" else frames
            for f, y, x in np.ndindex(frames, down // MERGE, across // MERGE):
                yield kind, number, f if kind == "video" else None, y, x, None
    elif family == "aria":  # nine queries of a resampler a picture: they have no place
        yield from [("image", n, None, None, None, None) for n in range(len(names)) for _ in range(9)]
    elif family == "llava":
        yield from (("image", n, None, y, x, None) for n in range(len(names)) for y, x in np.ndindex(6, 6))
    elif kind == "video":  # InternVL: every frame is a tile
        yield from (("video", 0, f, y, x, None) for f, y, x in np.ndindex(4, SIDE, SIDE))
    else:
        for number, name in enumerate(names):
            yield from _tiled(number, *TILES[family][name])


def _tiled(number: int, down: int, across: int) -> Iterator[Token]:
    if (down, across) == (1, 1):
        yield from (("image", number, None, y, x, None) for y, x in np.ndindex(SIDE, SIDE))
        return
    for row, column, y, x in np.ndindex(down, across, SIDE, SIDE):
        yield "image", number, None, row * SIDE + y, column * SIDE + x, "tiles"
    yield from (("image", number, None, y, x, "overview") for y, x in np.ndindex(SIDE, SIDE))


def heard(frames: int) -> int:
    """Tokens that Qwen3-Omni's audio encoder makes of so many mel frames: 13 of every hundred, the rest halved three times."""
    rest = frames % 100
    for _ in range(3):
        rest = (rest + 1) // 2
    return frames // 100 * 13 + rest
