"""A picture, a sound or a video of a record: where it is, and what is in it once that is asked for.

A cell is a path (from the folder of the data file on), bytes, a dict with `bytes` or `path` as data sets have it, a picture of
Pillow, an array, or a list of these. Nothing is decoded before it is needed; then pictures are (H, W, 3) uint8, videos
(frames, H, W, 3) uint8, sound (samples,) float32 of one channel.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ....errors import InputError
from ....foreign import doing
from ..bounds import read_bytes
from . import sound, video

Modality = Literal["image", "video", "audio"]
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DATA = re.compile(r"data:[\w/+.-]*;base64,", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Medium:
    """A picture, a video or a sound of a record, not decoded yet; `where` names it in messages, paths begin in `folder`."""

    kind: Modality
    cell: Any
    where: str
    folder: Path | None = None

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 of a picture, (frames, H, W, 3) of a video. InputError naming it where that is not what it is."""
        return _pixels(self)

    def samples(self, rate: int) -> np.ndarray:
        """(samples,) float32 of a sound, at so many samples a second."""
        with doing(f"reading {self.where}", InputError):
            wave, own = sound.wave(_plain(self.cell, self), self.where)
            return sound.resampled(wave, own, rate)

    @property
    def rate(self) -> float | None:
        """Frames a second of a video, where its file says it."""
        return _frames(self)[1] if self.kind == "video" else None

    def digest(self) -> bytes:
        """SHA-256 of what it holds, as it is given: of a path the path itself and the file's size."""
        found = hashlib.sha256(self.kind.encode())
        pieces = self.cell if self.kind == "video" and isinstance(self.cell, list | tuple) else [self.cell]
        for piece in pieces:
            found.update(_given(piece, self))
        return found.digest()


def _given(cell: Any, medium: Medium) -> bytes:
    """What a cell holds, without decoding it; of what nothing can be made, its type."""
    try:
        said = _of_dict(cell, medium) if isinstance(cell, Mapping) else cell
        if isinstance(said, str | Path) and not DATA.match(str(said)):
            path = (medium.folder or Path()) / str(said)
            return f"{said}\0{path.stat().st_size if path.is_file() else None}".encode(errors="backslashreplace")
        plain = _plain(said, medium)
        return plain if isinstance(plain, bytes) else _array(plain).tobytes()
    except (InputError, ValueError, OSError):
        return type(cell).__name__.encode()


def _array(plain: Any) -> np.ndarray:
    return np.ascontiguousarray(plain[0] if isinstance(plain, tuple) else plain)


def _plain(cell: Any, medium: Medium) -> Any:
    """A cell as bytes, or as what it is in memory: an array, (array, rate). InputError where nothing can be made of it."""
    if isinstance(cell, Mapping):
        cell = _of_dict(cell, medium)
    if isinstance(cell, str | Path):
        return _of_path(cell, medium)
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    if hasattr(cell, "get_all_samples"):  # a decoder of datasets
        got = cell.get_all_samples()
        return np.asarray(got.data, np.float32).T, int(got.sample_rate)
    if hasattr(cell, "convert") and hasattr(cell, "getexif"):  # Pillow
        return np.asarray(cell if cell.mode in ("L", "RGB") else cell.convert("RGB"))
    if hasattr(cell, "detach"):
        cell = cell.detach().cpu().numpy()
    if isinstance(cell, list | tuple | np.ndarray):
        return cell
    raise InputError(
        f"{medium.where} is {type(cell).__name__}, of which no {medium.kind} can be made; give a path, bytes or an array"
    )


def _of_dict(cell: Mapping[str, Any], medium: Medium) -> Any:
    """What a dict of a data set holds: bytes, path, or array and sampling_rate."""
    if cell.get("bytes") is not None:
        return cell["bytes"]
    if cell.get("array") is not None:
        return np.asarray(cell["array"], np.float32), int(cell.get("sampling_rate") or 0) or None
    found = next((cell[name] for name in ("path", "url", "file_name") if cell.get(name)), None)
    if found is None:
        known = ", ".join(map(str, cell)) or "nothing"
        raise InputError(f"{medium.where} is a dict with {known}, not with `bytes`, `path` or `array`; give one of them")
    return found


def _of_path(cell: str | Path, medium: Medium) -> bytes:
    said = str(cell)
    if match := DATA.match(said):
        return base64.b64decode(said[match.end() :])
    if said.startswith("file://"):
        said = said.removeprefix("file://")
    if ADDRESS.match(said):
        raise InputError(f"{medium.where} is an address ({said[:80]}), and nothing is fetched; save it and give its path")
    path = (medium.folder or Path()) / Path(said).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise InputError(f"{medium.where}: {said} {what}; paths begin at the folder of the data file")
    return read_bytes(path, f"{medium.where} ({said})")


@lru_cache(maxsize=16)  # asked for when it is measured, fed and kept: a batch's worth
def _pixels(medium: Medium) -> np.ndarray:
    with doing(f"reading {medium.where}", InputError):
        if medium.kind == "video":
            return _frames(medium)[0]
        return picture(_plain(medium.cell, medium), medium.where)


@lru_cache(maxsize=4)
def _frames(medium: Medium) -> tuple[np.ndarray, float | None]:
    with doing(f"reading {medium.where}", InputError):
        pieces = medium.cell if isinstance(medium.cell, list | tuple) else None
        if pieces is not None:
            if not pieces:
                raise InputError(f"{medium.where} has no frames; give at least one")
            frames = [picture(_plain(one, medium), f"{medium.where}, frame {n}") for n, one in enumerate(pieces)]
            return video.stacked(frames, medium.where), None
        return video.frames(_plain(medium.cell, medium), _name(medium.cell), medium.where)


def _name(cell: Any) -> str:
    if isinstance(cell, Mapping):
        cell = cell.get("path") or ""
    return str(cell) if isinstance(cell, str | Path) else ""


def picture(plain: Any, where: str) -> np.ndarray:
    """(H, W, 3) uint8 of the bytes of an image file, or of an array (H, W) or (H, W, 1, 3 or 4). InputError if it is none."""
    from ...images import decode

    array = decode(plain, where) if isinstance(plain, bytes) else np.asarray(plain)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.dtype != np.uint8:
        raise InputError(f"{where} is an array {array.shape} {array.dtype}; give (H, W) or (H, W, 3) uint8")
    if 0 in array.shape:
        raise InputError(f"{where} has no pixels: it is {array.shape[1]} × {array.shape[0]}; leave it out")
    array = array[..., None] if array.ndim == 2 else array[..., :3]
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
