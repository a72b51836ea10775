"""A folder of pictures, sound or video that a file `metadata.jsonl`, `.csv` or `.parquet` describes, as data sets have it.

Its column `file_name` (or `image_file_name`, ...) names the files, from the folder of the metadata on; `text` and labels are as
in every table, and --prompt is the text of rows without one. Without any text the pictures are read as a folder of images.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ._reading import formats
from ._reading.files import list_files, shown
from ._reading.options import Options
from ._reading.types import Example
from .folder import enter_split

SUFFIXES: frozenset[str] = frozenset()
TAKES = frozenset({"text_column", "label_columns", "split", "chat", "prompt"})
RANK = -1
NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def accepts(path: Path) -> bool:
    """A folder with such a file, in it or below, that says something of a text."""
    return path.is_dir() and any(_speaks(file) for file in _files(path))


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per row; the row's text is about its files."""
    root, inner = enter_split(path, options)
    for file in _files(root):
        name = shown(file.relative_to(root).as_posix())
        yield from formats.read_examples(file, replace(inner, source=name, folder=file.parent, file_name=True))


def _files(root: Path) -> list[Path]:
    return [file for file in list_files(root) if file.name in NAMES]


def _speaks(file: Path) -> bool:
    """Whether a metadata file has a column of files, by its first bytes."""
    with file.open("rb") as opened:
        return b"file_name" in opened.read(1 << 16) or file.suffix == ".parquet"
