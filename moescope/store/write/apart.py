"""Rows of large runs stay in the shards in which they were written: the file describes them, and shows them by views.

So a run is finished without writing it twice, and a change copies a file that has no rows of large runs in it. What the file
says of such a part stands in its table `apart`; the name, length and checksum of every file are in it, so that nothing else
in the folder counts. `moescope pack` brings the rows in (pack.py).
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from ...errors import StoreError
from ..files.durable import crc
from ..files.paths import parquet
from ..schema import HERE, comment_view, is_bulk
from .placed import shift
from .projection import selected
from .scans import BOUNDS, Apart, Ranges, shown
from .unfinished_run import COUNTED, VOCABULARY, UnfinishedRun

_LARGE = 8 << 20  # bytes of shards, from which on they stay as they are
SETTING = "MOESCOPE_APART_BYTES"
_SUMS = VOCABULARY.partition("/")[0]
_FOLDER = re.compile(rf"shard-[0-9]{{6,}}|{_SUMS}")
_PART = re.compile("[0-9a-f]{12}")
_MOST = 1 << 32


def large() -> int:
    """Bytes of shards from which on the rows of a run stay apart. StoreError if the setting for that is no number."""
    said = os.environ.get(SETTING, str(_LARGE))
    if not re.fullmatch("[0-9]{1,18}", said):
        raise StoreError(f"{SETTING} is {said[:40]!r}; give a whole number of bytes from which on a run's rows stay apart")
    return int(said)


def stays(part: UnfinishedRun) -> bool:
    """Whether a run is so large that its rows stay apart. StoreError as of `large`."""
    written = (size for shard in part.shards for size, _ in part.written(shard).values())
    return bool(part.shards) and sum(written) >= large()


def describe(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, base: Mapping[str, int]) -> None:
    """Say in the file that the rows of `part`, whose keys begin at `base`, lie apart."""
    following = part.progress["next"]
    ends = {key: base[key] + following[key] for key in COUNTED}
    for table in sorted(name for name in part.tables() if is_bulk(name)):
        written = {shard.name: part.written(shard).get(f"{table}.parquet") for shard in part.shards}
        _insert(con, part, base, ends, table, {shard: said for shard, said in written.items() if said})
    if (counted := part.path / VOCABULARY).exists():
        _insert(con, part, base, ends, "vocab_rollup", {_SUMS: (counted.stat().st_size, crc(counted))})


def _insert(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, base: Mapping[str, int], *rest: Any) -> None:
    """A row for each set of columns that some files of a table have."""
    ends, table, files = rest
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for folder, written in files.items():
        about = pq.read_metadata(part.path / folder / f"{table}.parquet")
        names = tuple(about.schema.to_arrow_schema().names)
        found.setdefault(names, {})[folder] = [*written, _ranges(about)]
    for names, alike in found.items():
        row = (part.path.name, base["run"], table, *map(json.dumps, (shift(base, part.keys), ends, names, alike)))
        con.execute("insert into apart values (?, ?, ?, ?, ?, ?, ?)", row)


def _ranges(about: pq.FileMetaData) -> Ranges:
    """First and last of the keys of a file for which it says so."""
    found: dict[str, tuple[int, int]] = {}
    for place in (place for place in range(about.num_columns) if about.schema.column(place).name in BOUNDS):
        said = [about.row_group(group).column(place).statistics for group in range(about.num_row_groups)]
        if said and all(one is not None and one.has_min_max for one in said):
            found[about.schema.column(place).name] = min(one.min for one in said), max(one.max for one in said)
    return found


def sums(part: UnfinishedRun, base: Mapping[str, int]) -> str | None:
    """SQL for what was counted of a run when it was finished, as rows of the store; None where that was not done."""
    file = part.path / VOCABULARY
    if not file.exists():
        return None
    return selected("vocab_rollup", pq.read_schema(file).names, parquet([file]), shift(base, part.keys), part.path.name)


def lying(con: duckdb.DuckDBPyConnection, store: object, database: str) -> list[Apart]:
    """What the file says of rows that lie apart. StoreError if that is nothing that moescope writes."""
    said = f'select part, run, "table", moved, columns, files from {database}.main.apart order by rowid'
    return [_checked(store, row) for row in con.execute(said).fetchall()]


def _checked(store: object, row: tuple[Any, ...]) -> Apart:
    try:
        part, run, table, *told = row
        moved, columns, files = map(json.loads, told)
        sound = bool(_PART.fullmatch(part)) and is_bulk(table) and {*COUNTED, "router", "model"} <= moved.keys()
        sound &= moved.get("run") == run and all(type(by) is int and abs(by) < _MOST for by in moved.values())
        sound &= bool(files) and all(map(_FOLDER.fullmatch, files))
        written = {folder: (int(said[0]), int(said[1])) for folder, said in files.items()}
        ranges = {folder: _sound(said[2]) for folder, said in files.items() if len(said) > 2 and said[2]}
        found = Apart(part, run, table, moved, [str(name) for name in columns], written, ranges)
    except (TypeError, ValueError, AttributeError, LookupError):
        sound = False
    if not sound:
        raise StoreError(f"{store} is not a moescope store as moescope writes it: what it says of rows apart; do not trust it")
    return found


def _sound(ranges: dict[str, Any]) -> Ranges:
    """Ranges as they are, or ValueError: of keys, and two whole numbers each."""
    for key, (first, last) in ranges.items():
        if key not in BOUNDS or type(first) is not int or type(last) is not int:
            raise ValueError(key)
    return ranges


def missing(folder: Path, rows: list[Apart]) -> str | None:
    """Of runs that lie apart, why one cannot be read, in words; None where all are there."""
    for part, run in {(row.part, row.run): None for row in rows}:
        if not (folder / part).is_dir():
            return (
                f"the rows of run {run} lie in {folder.name}/{part}, which is not there: put that folder back beside the file"
            )
    return None


def changed(folder: Path, rows: list[Apart]) -> tuple[int, str] | None:
    """(run, which file of it is not as it was written, in words) of the first such file; None where all are."""
    for row in rows:
        for path, (length, checksum) in zip(row.paths(folder), row.files.values()):
            where = f"{folder.name}/{path.relative_to(folder)}"
            try:
                if path.stat().st_size != length or crc(path) != checksum:
                    return row.run, f"{where} is not as it was written"
            except OSError as error:
                return row.run, f"{where} cannot be read ({error.strerror})"
    return None


def split(con: duckdb.DuckDBPyConnection) -> None:
    """Give the tables whose rows may lie apart another name, so that views can take theirs."""
    for table in _tables(con):
        if is_bulk(table):
            con.execute(f"alter table {table} rename to {table}{HERE}")


def unite(con: duckdb.DuckDBPyConnection) -> None:
    """The reverse, for a file that describes nothing any more."""
    for table in _tables(con):
        if table.endswith(HERE) and is_bulk(name := table.removesuffix(HERE)):
            con.execute(f"drop view if exists {name}")
            con.execute(f"alter table {table} rename to {name}")


def show(con: duckdb.DuckDBPyConnection, store: Path, folder: Path, only: set[str] | None = None) -> None:
    """Make the views that show rows in the file and rows apart as one: all, or `only` of some tables. Until `all_files`
    (scans.py) they look at few."""
    rows = lying(con, store, "store")
    there = [table.removesuffix(HERE) for table in _tables(con) if table.endswith(HERE)]
    wanted = {table for table in {*there, *(row.table for row in rows)} if only is None or table in only}
    apart = shown(con, [row for row in rows if row.table in wanted], folder, movable=True)
    for table in sorted(wanted):
        own = [f"select * from {table}{HERE}"] if table in there else []
        parts = [*own, *(f"({sql})" for sql in apart.get(table, ()))]
        con.execute(f"create or replace view {table} as {' union all by name '.join(parts)}")
        comment_view(con, table)


def _tables(con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    sql = "select table_name from duckdb_tables() where database_name = current_database() and not internal order by 1"
    yield from [name for (name,) in con.execute(sql).fetchall()]
