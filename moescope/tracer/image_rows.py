"""Columns of images and their patches, as a vision tower was given them. Runs on the writing thread."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .patches import in_blocks, in_tower
from .streams import Stream


def sizes(stream: Stream, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Patches down and across, of images."""
    if stream.kind != "image":
        return {}
    if "grid" in arrays:
        divide = 1 if int(arrays["patches"]) == stream.shape[1] else stream.merge
        return {"height": arrays["grid"][:, 1] // divide, "width": arrays["grid"][:, 2] // divide}
    _, y, x = in_tower(stream.shape[1], stream.grid)
    return {"height": int(y.max()) + 1, "width": int(x.max()) + 1} if (y >= 0).any() else {}


def patches(stream: Stream, place: np.ndarray, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Grid coordinates: a grid of patches, after class tokens where the count leaves some over."""
    import pyarrow as pa

    patch, y, x = in_tower(stream.shape[1], stream.grid)
    if "grid" in arrays:
        cells = in_blocks(arrays["grid"], stream.merge, stream.shape[1], int(arrays["patches"]))
        patch, y, x = (patch, y, x) if cells is None else (np.ones(len(cells), bool), cells[:, 2], cells[:, 3])
    return {
        "unit": np.where(patch[place], "patch", "cls").tolist(),
        "y": pa.array(y[place], pa.int32(), mask=y[place] < 0),
        "x": pa.array(x[place], pa.int32(), mask=x[place] < 0),
        "special": ~patch[place],
    }
