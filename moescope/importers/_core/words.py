"""Text of tokens, and labels of requests, which captures do not bring."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...foreign import doing
from ...inputs._reading.files import suffix
from ...inputs._reading.options import Options
from ...inputs._reading.raw.byte_streams import lines, texts
from .hub import hub_file

_KEYS = ("request", "request_id", "id", "rid", "document", "source_row", "row")
_MOST = 256 << 20


class Tokenizer:
    """A tokenizer.json, read by `tokenizers` (no model library is loaded)."""

    def __init__(self, place: str | Path) -> None:
        file = _tokenizer_file(str(place))
        with doing(f"reading {file}", InputError):
            from tokenizers import Tokenizer as Read

            if file.stat().st_size > _MOST:
                raise InputError(f"{file} has {file.stat().st_size:,} bytes, which no tokenizer has")
            self._inner: Any = Read.from_file(str(file))

    def words(self, ids: Iterable[int]) -> list[str]:
        """Each id as text; where an id is a part of a character, the tokenizer's own piece."""
        found = []
        for i in ids:
            text = self._inner.decode([i], skip_special_tokens=False)
            found.append(text if text and "\ufffd" not in text else (self._inner.id_to_token(i) or ""))
        return found

    def text(self, ids: Sequence[int]) -> str:
        """All of them together."""
        return str(self._inner.decode(list(ids), skip_special_tokens=False)).replace("\0", "\ufffd")


def _tokenizer_file(place: str) -> Path:
    path = Path(place)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return file
    if (found := hub_file(place, "tokenizer.json")) is not None:
        return found
    raise InputError(f"there is no tokenizer at {place}: name a tokenizer.json, the folder that has it, or a model of the hub")


class Labels:
    """Labels of requests: a CSV or JSON lines with a column that names the request, the others being its labels."""

    def __init__(self, path: Path) -> None:
        rows = [_plain(row, path) for row in _rows(path)]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        self.key = next((name for name in _KEYS if name in columns), "")
        if not self.key:
            raise InputError(
                f"{path} has no column that names a request (one of {', '.join(_KEYS)}); it has: {', '.join(columns) or 'none'}"
            )
        self._known: dict[str, dict[str, str]] = {}
        for row in rows:
            name = str(row.get(self.key))
            if name in self._known:
                raise InputError(f"{path} names request {name[:80]} twice: give each request's labels in one row")
            self._known[name] = {
                kind: str(value) for kind, value in row.items() if kind != self.key and value not in (None, "")
            }
        self.path, self.used = path, 0

    def of(self, *names: object) -> Mapping[str, str]:
        """The labels of the first of these names that is there."""
        for name in names:
            if name is not None and (found := self._known.get(str(name))) is not None:
                self.used += 1
                return found
        return {}

    def __len__(self) -> int:
        return len(self._known)


def _plain(row: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """A row whose values are labels. InputError where one is none, or the row has more of them than there are columns."""
    name = next(iter(row.values()), None)
    if None in row:
        raise InputError(f"{path}: the row of {str(name)[:80]} has more cells than there are columns: quote what has commas")
    if other := next((kind for kind, value in row.items() if isinstance(value, list | dict)), None):
        raise InputError(f"{path}: {other[:80]} of {str(name)[:80]} is a list or an object: a label is a text or a number")
    return row


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"there is no file of labels {path}")
    if suffix(path) in (".csv", ".tsv"):
        return list(csv.DictReader(texts(lines(path, path.name, Options())), delimiter="\t" if suffix(path) == ".tsv" else ","))
    with doing(f"reading the labels in {path}", InputError):
        rows = [json.loads(line) for line in texts(lines(path, path.name, Options())) if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} holds other things than JSON objects: write one a line, or a CSV")
    return rows
