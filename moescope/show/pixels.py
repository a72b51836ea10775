"""The pixels behind patches and pieces.

Of pictures beside texts the store keeps small ones; those of vision models are read from the shipped data set, where that was
traced.
"""

import base64
import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from .. import inputs

PICTURES = 'select medium, frame, "view", file from pictures where sequence = ?'
PANELS = """
select m.label as medium, try_cast(f.label as integer) as frame, v.label as view, max(t.y) + 1 as height, max(t.x) + 1 as width
from tokens t join token_labels m on m.token = t.token and m.kind = 'medium'
left join token_labels f on f.token = t.token and f.kind = 'frame'
left join token_labels v on v.token = t.token and v.kind = 'view'
where t.sequence = ? and t.y is not null group by all"""
HEADS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png"}  # what the store keeps; anything else is not handed to a browser
Key = tuple[str, int | None, str | None]
Rows = Callable[..., list[dict[str, Any]]]  # (sql, *params): the rows


@lru_cache(2)
def _images(dataset: str) -> np.ndarray | None:
    home = inputs.shipped().get(dataset.rpartition("/")[2])
    if home is None or not (home / "images.npz").is_file():
        return None
    with np.load(home / "images.npz", allow_pickle=False) as archive:
        return np.asarray(archive["images"]) if "images" in archive else None


def data_url(dataset: str | None, row: Any) -> str | None:
    """The image in row `row` of a shipped data set, as a data URL; None where it cannot be had."""
    images = _images(dataset) if dataset else None
    if images is None or row is None or not 0 <= int(row) < len(images):
        return None
    buffer = io.BytesIO()
    Image.fromarray(images[int(row)]).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def kept_url(rows: Rows, sequence: int) -> str | None:
    """The first picture that the store keeps of a sequence: of patches that a tower sees of it."""
    return next((_url(row["file"]) for row in rows(PICTURES, sequence)), None)


def panels(rows: Rows, sequence: int) -> dict[Key, dict[str, Any]]:
    """Of every picture that a sequence speaks of, by medium, frame and view: its image, and tokens down and across."""
    kept = rows(PICTURES, sequence)
    files = {(row["medium"], _whole(row["frame"]), row["view"] or None): _url(row["file"]) for row in kept}
    found = {}
    for row in rows(PANELS, sequence):
        medium, frame, view = row["medium"], _whole(row["frame"]), row["view"] or None
        image = files.get((medium, frame, view), files.get((medium, frame, None)))
        name = " · ".join([medium, *([] if frame is None else [f"frame {frame}"]), *([view] if view else [])])
        found[medium, frame, view] = {"image": image, "height": int(row["height"]), "width": int(row["width"]), "name": name}
    return found


def _whole(value: Any) -> int | None:
    return None if value is None or value != value else int(value)


def _url(file: Any) -> str | None:
    """A kept picture as a data URL; None for bytes that are no PNG and no JPEG."""
    data = bytes(file or b"")
    kind = next((name for head, name in HEADS.items() if data.startswith(head)), None)
    return None if kind is None else f"data:image/{kind};base64," + base64.b64encode(data).decode()
