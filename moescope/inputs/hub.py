"""Hugging Face data sets: a folder written by `save_to_disk`, or the hub's name 'owner/name' or 'owner/name:config'."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..foreign import doing, one_line
from ._reading import conversations, files, formats, table_rows
from ._reading.bounds import read_bytes
from ._reading.files import suffix
from ._reading.labels.part_labels import COLUMNS
from ._reading.labels.row_labels import RowLabels
from ._reading.media.media_cells import COLUMNS as MEDIA
from ._reading.media.media_cells import media_columns
from ._reading.options import Options
from ._reading.types import Example, Lazy
from .images import decode, of_rows

SUFFIXES: frozenset[str] = frozenset()
TAKES = frozenset({"text_column", "label_columns", "split", "chat", "prompt"})
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?")
ON_DISK = ("dataset_dict.json", "dataset_info.json")


def accepts(path: Path) -> bool:
    """A folder with the files of save_to_disk, or a name that no folder and no file ending explains."""
    if path.exists():
        return any((path / name).is_file() for name in ON_DISK)
    is_name = NAME.fullmatch(path.as_posix()) and suffix(path) not in formats.suffixes()
    return bool(is_name) and not path.parent.exists()


def read_examples(path: Path, options: Options) -> Iterable[Example]:
    """Rows with a text column, or, where there is none but a column of images, its images; each is a document."""
    source = options.name(path) if path.exists() else path.as_posix()
    data = pick_split(_from_disk(path, source) if path.exists() else _from_hub(source, options), options, source)
    if not path.exists() and not options.stream:
        options.report.sha256 = _digest(data)
    return of_data(data, options, source)


def of_data(data: Any, options: Options, source: str) -> Iterable[Example]:
    """Examples of a data set that is loaded, or that streams."""
    image_columns = [name for name, kind in (data.features or {}).items() if type(kind).__name__ == "Image"]
    if image_columns and options.text_column is options.prompt is None and "text" not in data.column_names:
        if options.stream or not hasattr(data, "__len__"):
            return of_rows(_Named(_undecoded(data), {image_columns[0]}), image_columns[0], options, source)
        return _images(data, image_columns[0], options, source)
    seen = media_columns(data.column_names or MEDIA, options)
    more = {"input_ids", "attention_mask", "tools", *COLUMNS, *conversations.COLUMNS, *seen}
    rows: Iterator[dict[str, Any]] = iter(_Named(_undecoded(data), {options.text_column, *more}))
    return table_rows.examples(rows, data.column_names, options, source) if data.column_names != [] else ()


def _undecoded(data: Any) -> Any:
    """With pictures, sound and video as bytes or paths: they are decoded when they are asked for."""
    for name, kind in (data.features or {}).items():
        for inner in (kind, getattr(kind, "feature", None)):
            if inner is not None and type(inner).__name__ in ("Image", "Audio", "Video") and inner.decode:
                plain = replace(inner, decode=False)
                data = data.cast_column(name, plain if inner is kind else type(kind)(plain))
    return data


def pick_split(data: Any, options: Options, source: str) -> Any:
    """The split asked for, or the only one; raises InputError naming those that exist."""
    if not isinstance(data, Mapping):
        if options.split is not None:
            raise InputError(f"{source} has no splits: leave {options.flag('split', options.split)} out.")
        return data
    there = ", ".join(data)
    if options.split is None and len(data) > 1:
        raise InputError(f"{source} has the splits {there}: name one with {options.flag('split')}.")
    if options.split is not None and options.split not in data:
        raise InputError(
            f"{source} has no split {options.split!r} (splits: {there}): name one of them with {options.flag('split')}."
        )
    return data[options.split or there]


def _from_disk(path: Path, source: str) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # whatever pyarrow and datasets raise on damaged files
        raise InputError(f"{source} cannot be loaded as a saved data set ({_first_line(error)}): save it again.") from error


def _from_hub(name: str, options: Options) -> Any:
    import datasets

    repository, _, config = name.partition(":")
    try:
        _ask_for(repository)
        return datasets.load_dataset(repository, config or None, **({"streaming": True} if options.stream else {}))
    except Exception as error:  # network, names, permissions, formats: each library has its own
        raise InputError(
            f"There is no file or folder {name!r}, and as a data set of the hub it cannot be loaded "
            f"({_first_line(error)}): check the path or the name, or pass a folder written by save_to_disk."
        ) from error


def _ask_for(repository: str) -> None:
    """Fail at once where load_dataset would try for half a minute; offline by choice, the cache may have it."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not HF_HUB_OFFLINE:
        HfApi().dataset_info(repository, timeout=10)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line((str(error).strip() or 'no message').splitlines()[0]).rstrip('.')}"


def _digest(data: Any) -> str:
    digests = [bytes.fromhex(files.sha256(Path(file["filename"]))) for file in data.cache_files]
    return sha256(b"".join(digests)).hexdigest()


class _Named(Iterable[dict[str, Any]]):
    """Rows with class numbers as class names, and without columns that cannot be text or label."""

    def __init__(self, data: Any, wanted: Collection[str | None] = ()) -> None:
        kinds = {name: type(kind).__name__ for name, kind in (data.features or {}).items()}
        self.classes = {name: data.features[name] for name, kind in kinds.items() if kind == "ClassLabel"}
        plain = [name for name, kind in kinds.items() if kind in ("Value", "ClassLabel") or name in wanted]
        self.data = data.with_format(None)
        if kinds:
            self.data = self.data.select_columns(plain)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._named(self.data[row])

    def __iter__(self) -> Any:
        return map(self._named, self.data)

    def _named(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._name(name, value) for name, value in row.items()}

    def _name(self, column: str, value: Any) -> Any:
        known = column in self.classes and value is not None and value >= 0
        return self.classes[column].int2str(value) if known else value


def _images(data: Any, column: str, options: Options, source: str) -> Lazy[int]:
    from datasets import Image

    table_rows.require(options.label_columns or (), data.column_names, source, options, "label_columns")
    raw, named = data.with_format(None).select_columns([column]).cast_column(column, Image(decode=False)), _Named(data)

    def make(row: int) -> Example:
        where = f"{source}, row {row}"
        cell = raw[row][column] or {}
        with doing(f"reading {where}", InputError):
            content = cell.get("bytes") or (read_bytes(Path(cell["path"]), where) if cell.get("path") else b"")
            labels = RowLabels(options, source).of(named[row], None, where)
            return Example(source, row, f"{source}:{row}", image=decode(content, where), labels=labels)

    return Lazy(range(len(data)), make)
