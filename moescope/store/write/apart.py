"""Rows of large runs stay in the shards in which they were written: the file describes them, and shows them by views.

So a run is finished without writing it twice, and a change copies a file that has no rows of large runs in it. What the file
says of such a part stands in its table `apart`; the name, length and checksum of every file are in it, so that nothing else
in the folder counts. `moescope pack` brings the rows in (pack.py).
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from ...errors import StoreError
from ..files.durable import crc
from ..files.paths import parquet, rows_of
from ..schema import HERE, comment_view, is_bulk, quote
from .projection import selected
from .unfinished_run import COUNTED, VOCABULARY, UnfinishedRun

_LARGE = 8 << 20  # bytes of shards, from which on they stay as they are
SETTING = "MOESCOPE_APART_BYTES"
VARIABLE = "moescope_parts"
_SUMS = VOCABULARY.partition("/")[0]
_FOLDER = re.compile(rf"shard-[0-9]{{6,}}|{_SUMS}")
_PART = re.compile("[0-9a-f]{12}")
_MOST = 1 << 32


@dataclass(frozen=True)
class Apart:
    """Rows of one table of one part, in files that have the same columns."""

    part: str
    run: int
    table: str
    moved: dict[str, int]
    columns: list[str]
    files: dict[str, tuple[int, int]]  # by folder: length and CRC-32

    def paths(self, folder: Path) -> list[Path]:
        """Its files, with STORE.parts at `folder`."""
        return [folder / self.part / inside / f"{self.table}.parquet" for inside in self.files]

    def sql(self, folder: Path | str, movable: bool = False) -> str:
        """Its rows as rows of the store; `movable`: a variable of the reader's can say that the folder lies elsewhere."""
        return selected(self.table, self.columns, rows_of(self._listed(folder, movable), alike=True), self.moved, self.part)

    def _listed(self, folder: Path | str, movable: bool) -> str:
        root = quote(escape(str(folder)))
        root = f"coalesce(getvariable({quote(VARIABLE)}), {root})" if movable else root
        return "[" + ", ".join(f"{root} || {quote(f'/{self.part}/{x}/{self.table}.parquet')}" for x in self.files) + "]"


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
    """Say in the file that the rows of `part`, moved by `base`, lie apart."""
    following = part.progress["next"]
    ends = {key: base[key] + following[key] for key in COUNTED}
    for table in sorted(name for name in part.tables() if is_bulk(name)):
        for columns, files in _alike(part, table):
            _insert(con, part, base, ends, table, columns, files)
    if (counted := part.path / VOCABULARY).exists():
        files = {_SUMS: (counted.stat().st_size, crc(counted))}
        _insert(con, part, base, ends, "vocab_rollup", pq.read_schema(counted).names, files)


def sums(part: UnfinishedRun, base: Mapping[str, int]) -> str | None:
    """SQL for what was counted of a run when it was finished, as rows of the store; None where that was not done."""
    file = part.path / VOCABULARY
    return (
        selected("vocab_rollup", pq.read_schema(file).names, parquet([file]), base, part.path.name) if file.exists() else None
    )


def _alike(part: UnfinishedRun, table: str) -> list[tuple[list[str], dict[str, tuple[int, int]]]]:
    """The files of a table in order, those of the same columns together."""
    found: dict[tuple[str, ...], dict[str, tuple[int, int]]] = {}
    for shard in part.shards:
        if (written := part.written(shard).get(f"{table}.parquet")) is not None:
            names = tuple(pq.read_schema(shard / f"{table}.parquet").names)
            found.setdefault(names, {})[shard.name] = written
    return [(list(names), files) for names, files in found.items()]


def _insert(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, base: Mapping[str, int], *rest: Any) -> None:
    ends, table, columns, files = rest
    row = (part.path.name, base["run"], table, *map(json.dumps, (dict(base), ends, columns, files)))
    con.execute("insert into apart values (?, ?, ?, ?, ?, ?, ?)", row)


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
        sound &= bool(files) and all(_FOLDER.fullmatch(folder) for folder in files)
        found = Apart(
            part, run, table, moved, [str(name) for name in columns], {f: (int(a), int(b)) for f, (a, b) in files.items()}
        )
    except (TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise StoreError(f"{store} is not a moescope store as moescope writes it: what it says of rows apart; do not trust it")
    return found


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


def reach(con: duckdb.DuckDBPyConnection, folder: Path | str) -> None:
    """From now on the views in the file look for rows in `folder`, also where it lay elsewhere when they were made."""
    con.execute(f"set variable {VARIABLE} = {quote(escape(str(folder)))}")


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
    """Make the views that show rows in the file and rows apart as one: all, or `only` of some tables."""
    rows = lying(con, store, "store")
    there = [table.removesuffix(HERE) for table in _tables(con) if table.endswith(HERE)]
    for table in sorted({*there, *(row.table for row in rows)}):
        if only is None or table in only:
            own = [f"select * from {table}{HERE}"] if table in there else []
            parts = [*own, *(f"({row.sql(folder, movable=True)})" for row in rows if row.table == table)]
            con.execute(f"create or replace view {table} as {' union all by name '.join(parts)}")
            comment_view(con, table)


def _tables(con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    sql = "select table_name from duckdb_tables() where database_name = current_database() and not internal order by 1"
    yield from [name for (name,) in con.execute(sql).fetchall()]
