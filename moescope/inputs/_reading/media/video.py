"""Video: frames of an array, an .npz or .npy with one, an animated picture (GIF, WebP, APNG), or a film that PyAV decodes."""

from io import BytesIO
from typing import Any

import numpy as np

from ....errors import InputError
from ....foreign import one_line

_ANIMATED = ((b"GIF8", "GIF"), (b"\x89PNG", "PNG"), (b"RIFF", "WEBP"))
_FILMS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg")
_SUFFIXES = (*_FILMS, ".npz", ".npy", ".gif", ".apng")


def is_video(cell: Any) -> bool:
    """Whether a cell of a list is a video of its own and no frame."""
    if isinstance(cell, str):
        return cell.lower().endswith(_SUFFIXES)
    if isinstance(cell, dict):
        return is_video(cell.get("path"))
    return isinstance(cell, np.ndarray) and cell.ndim == 4


def frames(plain: Any, name: str, where: str) -> tuple[np.ndarray, float | None]:
    """(frames, H, W, 3) uint8 and frames a second (None: not said). InputError where it is no video."""
    rate = None
    if isinstance(plain, bytes):
        plain, rate = _decoded(plain, name, where)
    array = np.asarray(plain)
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or array.dtype != np.uint8:
        raise InputError(
            f"{where} is an array {array.shape} {array.dtype}; give (frames, H, W, 3) uint8, or a list of pictures"
        )
    if 0 in array.shape:
        raise InputError(f"{where} has no pixels: it is {array.shape[0]} frames of {array.shape[2]} × {array.shape[1]}")
    return np.ascontiguousarray(np.broadcast_to(array[..., :3], (*array.shape[:3], 3))), rate


def stacked(found: list[np.ndarray], where: str) -> np.ndarray:
    """Frames (H, W, 3) as one array. InputError where they are of several sizes."""
    sizes = sorted({frame.shape[:2] for frame in found})
    if len(sizes) > 1:
        said = ", ".join(f"{w} × {h}" for h, w in sizes[:4])
        raise InputError(f"{where} has frames of {len(sizes)} sizes ({said}); bring them to one")
    return np.stack(found)


def _decoded(data: bytes, name: str, where: str) -> tuple[np.ndarray, float | None]:
    if data[:4] == b"PK\x03\x04" or data[:6] == b"\x93NUMPY":
        return _of_numpy(data, where), None
    for head, kind in _ANIMATED:
        if data.startswith(head) and (kind != "WEBP" or data[8:12] == b"WEBP"):
            return _animated(data, kind, where)
    return _film(data, name, where)


def _of_numpy(data: bytes, where: str) -> np.ndarray:
    try:
        found: Any = np.load(BytesIO(data), allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        names = [n for n in ("frames", "video", *found.files) if n in found.files]
        return np.asarray(found[names[0]])
    except Exception as error:  # of zip files, of their compression, of headers
        raise InputError(
            f"{where} is no array of frames that NumPy can read ({one_line(str(error))}): save it again."
        ) from error


def _animated(data: bytes, kind: str, where: str) -> tuple[np.ndarray, float | None]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(BytesIO(data), formats=(kind,)) as image:
            found, times = [], []
            for frame in ImageSequence.Iterator(image):
                found.append(np.asarray(frame.convert("RGB")))
                times.append(float(frame.info.get("duration", 0)))
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(f"{where} is no video that Pillow can read ({one_line(str(error))}): repair it.") from error
    seconds = sum(times) / 1000
    return stacked(found, where), len(found) / seconds if seconds else None


def _film(data: bytes, name: str, where: str) -> tuple[np.ndarray, float | None]:
    try:
        import av
    except ImportError:
        what = f"a film ({name})" if name.lower().endswith(_FILMS) else "no array and no animated picture"
        raise InputError(
            f"{where} is {what}, and PyAV, which decodes films, is not installed: pip install av, or give its frames"
        ) from None
    try:
        with av.open(BytesIO(data), "r") as container:
            if not container.streams.video:
                raise InputError(f"{where} has no film in it: it is cut off, or sound alone")
            stream = container.streams.video[0]
            rate = float(stream.average_rate) if stream.average_rate else None
            found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except InputError:
        raise
    except Exception as error:  # FFmpeg's own, and what it says of damaged files
        raise InputError(f"{where} is no film that PyAV can decode ({one_line(str(error))}): repair it.") from error
    if not found:
        raise InputError(f"{where} has no frames; leave it out")
    return np.stack(found), rate
