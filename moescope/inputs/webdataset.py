"""Shards of WebDataset: tar files whose neighbouring members of one name are a sample, and whose endings are its fields.

`.txt` is the text, `.json` an object of columns, `.cls` the label `class`; a picture, sound or video is the column `image`,
`audio` or `video`, as {"bytes", "path"}; pictures without any text are images to look at. Layout: https://github.com/webdataset/webdataset#the-webdataset-format
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from ..errors import InputError
from ._reading import bounds, conversations, table_rows
from ._reading.files import shown, suffix
from ._reading.options import Options
from ._reading.raw.byte_streams import ByteStream
from ._reading.types import Example
from .images import of_rows

SUFFIXES = frozenset({".tar"})
TAKES = frozenset({"text_column", "label_columns", "chat", "prompt"})
MEDIA = {
    "image": {"jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "pgm", "tif", "tiff"},
    "audio": {"wav", "flac", "mp3", "ogg", "opus", "m4a"},
    "video": {"mp4", "webm", "mkv", "avi", "mov"},
}
_KIND = {ending: name for name, endings in MEDIA.items() for ending in endings}
_TEXT = {"txt": "text", "text": "text", "cls": "class"}
Member = tuple[str, str, bytes]  # key, ending, content


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and suffix(path) in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per sample; raises InputError for what is no tar, and for one that is cut off or broken."""
    source = options.name(path)
    rows = _samples(path, source, options)
    drawn = list(islice(rows, 1))
    first = drawn[0] if drawn and not isinstance(drawn[0], InputError) else {}
    alone = "image" in first and not {"text", "input_ids", *conversations.COLUMNS} & first.keys()
    if alone and options.prompt is options.text_column is None:
        return of_rows(chain(drawn, rows), "image", options, source)
    return table_rows.examples(chain(drawn, rows), None, options, source)


def _samples(path: Path, source: str, options: Options) -> Iterator[Mapping[str, Any] | InputError]:
    if path.stat().st_size == 0:
        return
    with ByteStream(path, source, options) as stream:
        samples = groupby(_members(stream, source, options), key=lambda member: member[0])
        for row, (key, members) in enumerate(samples):
            yield _sample(key, members, f"{source}, row {row}")
        for _ in stream:  # to the end, where a packed file says whether it is whole
            pass


class _Strict(tarfile.TarInfo):
    """A header; what tarfile takes for the end of the archive though it is none is an error."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "_Strict":
        """Of one block. tarfile.ReadError for half a block or a broken one."""
        try:
            return super().frombuf(buf, encoding, errors)  # type: ignore[return-value]
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the block that ends an archive
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}" if buf else "it ends without the mark of its end") from error


def _members(stream: ByteStream, source: str, options: Options) -> Iterator[Member]:
    name = ""
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Strict) as archive:  # type: ignore[call-overload]
            for member in archive:
                name = member.name
                key, ending = _parted(name)
                if not member.isfile() or not ending or Path(name).name.startswith("."):
                    continue
                bounds.allow(member.size, f"{source}, {shown(name)}")
                yield key, ending, archive.extractfile(member).read()
                archive.members = []  # which would grow
    except (tarfile.TarError, EOFError) as error:
        behind = f" behind {shown(name)}" if name else ""
        raise InputError(f"{source} is not a whole tar file ({error}){behind}: pack it again.") from error


def _parted(name: str) -> tuple[str, str]:
    """A member's key and ending: up to the first dot of its last part, and from there."""
    folder, _, last = name.rpartition("/")
    base, _, ending = last.partition(".")
    return shown(f"{folder}/{base}" if folder else base), ending.lower()


def _sample(key: str, members: Iterator[Member], where: str) -> Mapping[str, Any] | InputError:
    found: dict[str, Any] = {}
    wrong: InputError | None = None
    for _, ending, content in members:
        try:
            found |= {k: v for k, v in _fields(ending, content, key, where).items() if k not in found or ending in _TEXT}
        except InputError as error:
            wrong = wrong or error
    if wrong is not None:
        return wrong
    return {"__key__": key, **found}


def _fields(ending: str, content: bytes, key: str, where: str) -> dict[str, Any]:
    if ending in _KIND:
        return {_KIND[ending]: {"bytes": content, "path": f"{key}.{ending}"}}
    if ending not in (*_TEXT, "json"):
        return {ending: content}
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text) if ending == "json" else text
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} ({key}.{ending}) cannot be read ({error}): repair it.") from None
    if ending != "json":
        return {_TEXT[ending]: value.strip() if ending == "cls" else value}
    if not isinstance(value, dict):
        raise InputError(f"{where} ({key}.{ending}) is a JSON {type(value).__name__}: give an object.")
    return value
