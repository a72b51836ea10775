"""The rows of a stretch with other keys: those of its place in the run."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...files.durable import crc
from ..placed import placed
from ..projection import says_run
from ..writer import write_rows

UNNAMED = "\ue000"  # before a document's name that is its sequence's key: a place of Unicode that no text uses
_OF = {"forward": "forward", "sequence": "sequence", "token": "token", "parent": "token"}  # columns by kind of key


@dataclass(frozen=True)
class Move:
    """What is added to each kind of key, whether documents are named by them, and how many pictures the run still keeps."""

    by: Mapping[str, int]
    unnamed: bool
    pictures: int


def lay(
    stretch: Path, folder: Path, written: Mapping[str, Any], move: Move, keys: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The files of a stretch in `folder`, on the same disk, with their keys moved, and placed by `keys`; gives (length,
    checksum) of each."""
    found = {}
    for name, known in written.items():
        table = Path(name).stem
        if table == "pictures" and not move.pictures:
            continue
        if not keys and _stays(stretch / name, table, move):
            _link(stretch / name, folder / name)
            found[name] = tuple(known)
        else:
            rows = _moved(pq.read_table(stretch / name, partitioning=None), table, move)
            write_rows(folder / name, placed(rows, keys or {}, says_run(table)))
            found[name] = (folder / name).stat().st_size, crc(folder / name)
    return found


def _stays(file: Path, table: str, move: Move) -> bool:
    if table == "pictures" and pq.read_metadata(file).num_rows > move.pictures:
        return False
    names = pq.read_schema(file).names if any(move.by.values()) else ()
    return not (table == "sequences" and move.unnamed) and not any(move.by.get(_OF.get(name, ""), 0) for name in names)


def _moved(rows: pa.Table, table: str, move: Move) -> pa.Table:
    rows = rows.slice(0, move.pictures) if table == "pictures" else rows
    for place, name in enumerate(rows.column_names):
        if by := move.by.get(_OF.get(name, ""), 0):
            column = rows.column(name)
            rows = rows.set_column(place, name, pc.add(column, pa.scalar(by, pa.int64())).cast(column.type))
    if table == "sequences" and move.unnamed:
        place = rows.column_names.index("document")
        names = [_named(name, move.by["sequence"]) for name in rows.column(place).to_pylist()]
        rows = rows.set_column(place, "document", pa.array(names, rows.column(place).type))
    return rows


def _named(name: str | None, by: int) -> str | None:
    return str(int(name[len(UNNAMED) :]) + by) if name is not None and name.startswith(UNNAMED) else name


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copyfile(source, target)
