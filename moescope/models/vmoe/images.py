"""Images as the authors feed them, with Pillow and NumPy (vmoe/data/pp_ops.py).

Their evaluation reads `decode|resize(SIZE)|value_range(-1,1)` for fine-tuned models, and
`decode|resize_small(256)|central_crop(224)|value_range(-1,1)` for models trained from scratch.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...errors import InputError
from .config import VMoEConfig

Picture = str | Path | Image.Image | np.ndarray
RESIZE_BEFORE_CROP = 256 / 224


def prepare(images: Sequence[Picture] | np.ndarray, config: VMoEConfig, crop: bool = False) -> np.ndarray:
    """float32 (N, C, H, W) in [-1, 1], from files, Pillow images or uint8 arrays (H, W) or (H, W, C).

    The whole image is stretched to the config's size by bilinear interpolation without antialiasing, rounded down to
    whole levels like theirs; `crop` instead brings the smaller side to 256/224 of it by area and takes the centre.
    Gray becomes three equal channels where the model has three, colour becomes gray where it has one.
    """
    if config.image_size is None:
        raise InputError("the config has no image_size: give one, so that images can be resized to it.")
    if not len(images):
        raise InputError("there are no images: give at least one.")
    height, width = config.image_size
    fit = _crop if crop else _stretch
    return np.stack([_scale(fit(pixels(image, config.channels), height, width)) for image in images])


def pixels(image: Picture, channels: int) -> np.ndarray:
    """uint8 (H, W, channels); InputError where the picture cannot be read or is of another type."""
    if isinstance(image, str | Path):
        image = _open(Path(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise InputError(f"an image is {image.dtype} {image.shape}: it must be uint8 (H, W) or (H, W, C).")
        image = Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[-1] == 1 else image)
    if channels not in (1, 3):
        raise InputError(f"the model has {channels} channels: images can be prepared for 1 or 3.")
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels)


def bilinear(size: int, out: int) -> np.ndarray:
    """(out, size) weights of linear interpolation between pixel centres, without antialiasing (tf.image.resize)."""
    where = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
    low = np.floor(where).astype(int)
    weights = np.zeros((out, size))
    np.add.at(weights, (np.arange(out), low), 1 - (where - low))
    np.add.at(weights, (np.arange(out), np.minimum(low + 1, size - 1)), where - low)
    return weights


def area(size: int, out: int) -> np.ndarray:
    """(out, size) weights of the mean over the stretch that each output pixel covers (tf.image.resize_area)."""
    edges = np.arange(out + 1) * size / out
    inside = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    return np.clip(inside, 0, None) / (size / out)


def _stretch(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return np.floor(_apply(image, bilinear(image.shape[0], height), bilinear(image.shape[1], width)) + 1e-6)


def _crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    ratio = round(max(height, width) * RESIZE_BEFORE_CROP) / min(image.shape[:2])
    rows, columns = round(image.shape[0] * ratio), round(image.shape[1] * ratio)
    small = _apply(image, area(image.shape[0], rows), area(image.shape[1], columns))
    top, left = (rows - height) // 2, (columns - width) // 2
    return small[top : top + height, left : left + width]


def _apply(image: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    return np.einsum("yh,hwc,xw->yxc", down, image.astype(np.float64), across, optimize=True)


def _scale(image: np.ndarray) -> np.ndarray:
    return (image.astype(np.float32) / np.float32(255) * 2 - 1).transpose(2, 0, 1)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read as an image: give a PNG, JPEG or other file that Pillow knows.") from error
