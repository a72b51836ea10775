"""The loops of lossless_encoding.py, compiled (Numba): each looks at a column once, and says whether nothing is lost."""

from typing import Any

import numpy as np

from .compiled import compiled, within

__all__ = ["halve", "near", "rest", "steps", "within"]


@compiled
def halve(bits: Any, found: Any) -> bool:
    """Upper 16 bits of float32 `bits` (N,) as uint32; False if a lower bit is set."""
    lower = np.uint32(0)
    for i in range(bits.size):
        lower |= bits[i] & np.uint32(0xFFFF)
        found[i] = bits[i] >> np.uint32(16)
    return lower == 0


@compiled
def rest(first: Any, second: Any, scale: float, most: int, found: Any) -> bool:
    """w1 - (1 - w0), times `scale`; False if it reaches `most` on either side."""
    far = 0
    for i in range(first.size):
        value = (np.float64(second[i]) - (1.0 - np.float64(first[i]))) * scale
        far += not (-most < value < most)
        found[i] = np.int32(value)
    return far == 0


@compiled
def near(first: Any, second: Any, most: int, found: Any) -> bool:
    """By the bfloat16 bits of two weights: how many 256ths w0 is above 1 - w1, rounded to 256ths. False if w0 lies outside of
    0.5 ... 1, or somewhere more than `most`."""
    far = 0
    for i in range(first.size):
        mantissa, exponent = second[i] & 127, np.int64(second[i]) >> 7
        other = (128 + mantissa) / np.float64(np.uint64(1) << np.uint64(134 - exponent))
        here = np.int64(first[i]) - 0x3F00 + 128
        value = here - np.int64(np.floor(256.5 - 256 * other))
        if here < 128 or here > 256 or value < -most or value > most:
            far += 1
        found[i] = np.int8(value)
    return far == 0


@compiled
def steps(values: Any, scale: float, found: Any) -> bool:
    """Values (N,) times `scale`; False if one is no whole number, or reaches 2^24."""
    other = 0
    for i in range(values.size):
        value = values[i] * np.float32(scale)
        whole: Any = np.int32(value) if abs(value) < 16777216 else np.int32(0)
        other += np.float32(whole) != value
        found[i] = whole
    return other == 0
