"""JSON lines, one object per line; and JSON files: an array of objects, or objects one after the other."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ._reading import table_rows
from ._reading.files import suffix
from ._reading.options import Options
from ._reading.raw.byte_streams import ByteStream, lines, pieces
from ._reading.raw.json_values import values
from ._reading.types import Example

SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
TAKES = frozenset({"text_column", "label_columns", "chat", "prompt"})


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and suffix(path) in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per object; a column exists if one of the first objects has it (table_rows.py)."""
    source = options.name(path)
    if suffix(path) == ".json" and not _has_lines(path, source, options):
        found = _objects(values(pieces(path, source, options), source), source)
    else:
        found = _records(lines(path, source, options), source, options)
    return table_rows.examples(found, None, options, source)


def _has_lines(path: Path, source: str, options: Options) -> bool:
    """Whether the first line is an object of its own."""
    with ByteStream(path, source, options) as stream:
        if stream.read(1 << 12).decode(errors="replace").lstrip("\ufeff \t\r\n").startswith("["):
            return False
    first = next((line for line in lines(path, source, options) if isinstance(line, InputError) or line.strip()), "{}")
    return isinstance(first, InputError) or not isinstance(_record(first, source), InputError)


def _records(found: Iterable[str | InputError], source: str, options: Options) -> Iterator[Mapping[str, Any] | InputError]:
    for number, line in enumerate(found, start=1):
        if isinstance(line, InputError):
            yield line
        elif line.strip():
            yield _record(line, f"{source}, line {number}")
        else:
            options.report.skip(source, "empty lines")


def _record(line: str, where: str) -> Mapping[str, Any] | InputError:
    try:
        return _object(json.loads(line), where, "write one object per line")
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        return InputError(f"{where} is not JSON ({what}): write one object per line.")


def _objects(found: Iterable[Any], source: str) -> Iterator[Mapping[str, Any] | InputError]:
    for row, value in enumerate(found):
        yield _object(value, f"{source}, row {row}", "write an array of objects")


def _object(value: Any, where: str, cure: str) -> Mapping[str, Any] | InputError:
    return value if isinstance(value, dict) else InputError(f"{where} is a JSON {type(value).__name__}: {cure}.")
