"""Images, decoded when asked for: a folder of them (the label `class` is the subfolder), or one file; with --prompt beside it.

Grey stays (H, W); everything else becomes RGB (H, W, 3), turned as its EXIF orientation says, without its alpha.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..foreign import doing, one_line
from ._reading import bounds
from ._reading.bounds import read_bytes
from ._reading.files import list_files, shown
from ._reading.labels.row_labels import RowLabels
from ._reading.media.medium import Medium
from ._reading.options import Options
from ._reading.types import Example, Lazy
from .folder import by_subfolder, enter_split, in_turn

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
TAKES = frozenset({"split", "prompt"})
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")  # Pillow knows others, and runs programs for some
DEEP = ("I", "F")  # 16 and 32 bits: no way to 8 bits is right for all
EXIF_ORIENTATION = 0x0112
T = TypeVar("T")


def accepts(path: Path) -> bool:
    """An image file by its ending, or a folder with at least one."""
    return any(map(_is_image, list_files(path))) if path.is_dir() else path.is_file() and _is_image(path)


def read_examples(path: Path, options: Options) -> Lazy[tuple[int, Path]]:
    """Every header is checked now, every image is decoded when asked for; each image is a document."""
    if path.is_file():
        return _lazy(path.parent, [path], options)
    root, options = enter_split(path, options)
    return read_files(root, list_files(root), options, options.name(path))


def read_files(root: Path, files: Sequence[Path], options: Options, name: str = "") -> Lazy[tuple[int, Path]]:
    """The same of files below a folder."""
    images = [p for p in files if _is_image(p)]
    options.report.skip(name, "files that are not images", len(files) - len(images))
    groups = by_subfolder(root, images)
    ordered = list(in_turn(groups) if options.limit else chain.from_iterable(groups))
    return _lazy(root, ordered[: options.limit], options)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _lazy(root: Path, paths: list[Path], options: Options) -> Lazy[tuple[int, Path]]:
    def make(key: tuple[int, Path]) -> Example:
        row, path = key
        source = shown(path.relative_to(root).as_posix())
        labels = {"class": source.partition("/")[0]} if "/" in source else {}
        if options.prompt is not None:
            return Example(source, row, source, options.prompt, labels=labels, media=(Medium("image", path.resolve(), source),))
        with doing(f"reading {source}", InputError):
            return Example(source, row, source, image=decode(read_bytes(path, source), source), labels=labels)

    keys, shapes = [], []
    for key in enumerate(paths):
        try:
            shapes.append(shape(key[1].open("rb"), shown(key[1].relative_to(root).as_posix())))
            keys.append(key)
        except InputError as error:
            options.report.bad(shown(key[1].relative_to(root).as_posix()), error)
    return Lazy(keys, make, None if options.prompt is not None else shapes)


def of_rows(rows: Iterable[Mapping[str, Any] | InputError], column: str, options: Options, source: str) -> Iterator[Example]:
    """One image a row, decoded when it is drawn; each is a document. The cell is bytes, or an object with bytes or a path."""
    labels, held = RowLabels(options, source), 0
    for row, record in enumerate(rows):
        where = f"{source}, row {row}"
        try:
            example = _of_row(record, column, labels, source, row, where)
        except InputError as error:
            options.report.bad(source, error)
            continue
        if example.image is not None and not options.stream:
            held += example.image.nbytes
            bounds.allow(held, source, "decoded it would fill", "give a part of it, or stream it with --stream")
        yield example


def _of_row(
    record: Mapping[str, Any] | InputError, column: str, labels: RowLabels, source: str, row: int, where: str
) -> Example:
    if isinstance(record, InputError):
        raise record
    cell = record.get(column)
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, Mapping) else (cell, None)
    with doing(f"reading {where}", InputError):
        if not isinstance(content, bytes):
            content = read_bytes(Path(path), where) if path else b""
        named = labels.of({name: value for name, value in record.items() if name != column}, None, where)
        return Example(source, row, f"{source}:{row}", image=decode(content, where), labels=named)


def decode(data: bytes, source: str) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3), uint8; raises InputError naming the source where data is no such image."""
    return _open(BytesIO(data), source, lambda image: np.asarray(_eight_bits(ImageOps.exif_transpose(image))))


def shape(file: BinaryIO, source: str) -> tuple[int, ...]:
    """What decode(...).shape will be, read from the header alone."""
    return _open(file, source, _header)


def _open(file: BinaryIO, source: str, use: Callable[[Image.Image], T]) -> T:
    try:
        with file, Image.open(file, formats=FORMATS) as image:
            if image.mode.startswith(DEEP):
                raise InputError(f"{source} has {image.mode} pixels of more than 8 bits: convert it to 8 bits first.")
            return use(image)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        what = "not an image that Pillow can read" if isinstance(error, OSError) else f"not readable ({one_line(str(error))})"
        raise InputError(f"{source} is {what}: repair it or leave it out.") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _header(image: Image.Image) -> tuple[int, ...]:
    width, height = image.size
    turned = image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    channels = () if image.mode in ("L", "1") else (3,)
    return ((width, height) if turned else (height, width)) + channels
