"""Which columns of a record hold pictures, video or sound, and what text goes with them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import InputError
from ..options import Options
from . import video
from .medium import Medium, Modality

COLUMNS: dict[str, Modality] = {
    "image": "image", "images": "image", "video": "video", "videos": "video", "audio": "audio", "audios": "audio",
}  # fmt: skip
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma")


def media_columns(columns: Iterable[str], options: Options) -> list[str]:
    """Which of some columns hold media: those of their names that are asked for as nothing else."""
    if not options.media:
        return []
    other = {options.text_column, *(options.label_columns or ())}
    found = [column for column in columns if column in COLUMNS and column not in other]
    files = [c for c in columns if options.file_name and (c == "file_name" or c.endswith("_file_name"))]
    return found + [column for column in files if column not in other]


def media_of(record: Mapping[str, Any], where: str, options: Options) -> tuple[Medium, ...]:
    """What the media columns of a record hold; a cell that is missing holds nothing."""
    found: list[Medium] = []
    for column in media_columns(record, options):
        for cell in _several(record.get(column), column):
            kind = COLUMNS.get(column) or _by_ending(cell)
            number = sum(one.kind == kind for one in found)
            found.append(Medium(kind, cell, f"{where}, {kind} {number}", options.folder))
    return tuple(found)


def prompted(columns: list[str], options: Options, source: str) -> None:
    """InputError unless there is a prompt for records that have media in these columns and no text at all."""
    if options.prompt is None:
        raise InputError(
            f"{source} has media (columns: {', '.join(columns)}) and no text: give {options.flag('prompt')}, which is the text "
            f"of all rows, or name a column of texts with {options.flag('text_column')}."
        )


def said_of(media: tuple[Medium, ...], text: Any, where: str, options: Options) -> Any:
    """The text of a record, or the prompt where it has media and none. InputError where nothing is said of media."""
    if not media or (text is not None and not (isinstance(text, str) and not text.strip())):
        return text
    if options.prompt is None:
        raise InputError(
            f"{where} has {media[0].kind}s and no text; give one, or {options.flag('prompt')}, which is the text of all such "
            "rows"
        )
    return options.prompt


def _by_ending(cell: Any) -> Modality:
    ending = Path(str(cell)).suffix.lower()
    return "audio" if ending in SOUNDS else "video" if ending != ".gif" and video.is_video(str(cell)) else "image"


def _several(cell: Any, column: str) -> list[Any]:
    """The media of one cell: a list is several, but of one video it may be its frames."""
    if isinstance(cell, np.ndarray) and cell.dtype == object:  # a list, as Arrow and pandas have it
        cell = list(cell)
    if cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and not cell.strip()):
        return []
    if not isinstance(cell, list | tuple):
        return [cell]
    if column == "audio" and len(cell) == 2 and isinstance(cell[1], int) and not isinstance(cell[0], int | float):
        return [cell]  # (samples, rate)
    if column.startswith("audio") and cell and all(isinstance(one, int | float) for one in cell):
        return [np.asarray(cell, np.float32)]
    if column == "video" and cell and not any(isinstance(one, list | tuple) or video.is_video(one) for one in cell):
        return [list(cell)]
    return [one for one in cell if one is not None]
