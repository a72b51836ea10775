"""Pictures made small, as files that a browser shows."""

from io import BytesIO

import numpy as np
from PIL import Image

SIDE = 512  # pixels at most
_EXACT = 64  # pixels up to which every one is kept


def thumbnail(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as PNG where it is tiny, else as JPEG, no side longer than 512 pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    tiny = max(image.size) <= _EXACT
    image.save(buffer, "png" if tiny else "jpeg", **({} if tiny else {"quality": 85}))
    return buffer.getvalue()
