"""JSON lines: one object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ._reading import table_rows
from ._reading.files import read_lines, suffix
from ._reading.options import Options
from ._reading.types import Example

SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
TAKES = frozenset({"text_column", "label_columns", "chat", "prompt"})


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and suffix(path) in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per object; a column exists if any object has it."""
    source = options.name(path)
    records = list(_records(path, source, options))
    columns = list(dict.fromkeys(key for record in records for key in record))
    if records:
        yield from table_rows.examples(records, columns, options, source)


def _records(path: Path, source: str, options: Options) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_lines(path, source), start=1):
        if line.strip():
            yield _record(line, number, source)
        else:
            options.report.skip(source, "empty lines")


def _record(line: str, number: int, source: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{source}, line {number} is not JSON ({what}): write one object per line.") from None
    if not isinstance(record, dict):
        raise InputError(f"{source}, line {number} is a JSON {type(record).__name__}: write one object per line.")
    return record
