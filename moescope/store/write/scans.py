"""The SQL that shows rows which lie apart: few scans, however many runs there are.

Runs whose shards have the keys of their store (placed.py) and the same columns are read together. Where they have many files,
these are taken some at a time, with the range of keys that each scan has: DuckDB leaves out those that cannot have what is
asked for before it opens a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path

import duckdb

from ..files.paths import literals, rows_of
from ..remote.hollow import named
from ..schema import quote
from .projection import selected
from .unfinished_run import PLANNED

VARIABLE = "moescope_parts"  # where STORE.parts lies, if not where it lay
_ONE = "moescope_one"  # of each scan, a file to look at instead of all
_SCANS, _LEAST = 8, 32  # scans at most; files that are taken together at least
Ranges = Mapping[str, tuple[int, int]]  # first and last
BOUNDS = ("token", "sequence")  # keys beside the run by which scans are left out


@dataclass(frozen=True)
class Apart:
    """Rows of one table of one part, in files that have the same columns."""

    part: str
    run: int
    table: str
    moved: dict[str, int]  # what is added to the keys in the files; of run and model what they are
    columns: list[str]
    files: dict[str, tuple[int, int]]  # by folder: length and CRC-32
    ranges: dict[str, Ranges]  # by folder: first and last of some keys; nothing where that is not said

    def paths(self, folder: Path) -> list[Path]:
        """Its files, with STORE.parts at `folder`."""
        return [folder / self.part / inside / f"{self.table}.parquet" for inside in self.files]

    @cached_property
    def placed(self) -> bool:
        """Whether the files have the store's own keys, and say of which run they are."""
        return "run" in self.columns and not any(self.moved[key] for key in PLANNED if key != "run")


@dataclass(frozen=True)
class Scan:
    """Some files of one table, of the same columns, that are read together."""

    first: Apart
    files: Sequence[str]  # within STORE.parts, without the table
    ranges: Sequence[Ranges] = ()
    runs: tuple[int, int] | None = None  # first and last, in rows that say their run; None: all are of that of `first`
    bounded: bool = False  # by the range of its keys

    def sql(self, folder: Path, name: str = _ONE, movable: bool = False) -> str:
        """Its rows as rows of the store, with STORE.parts at `folder`; `name`: of the variable that may give one of its files
        to look at; `movable`: another one can say that the folder lies elsewhere."""
        table, first = self.first.table, self.first
        root = quote(escape(str(folder) if movable else named(folder)))
        root = f"coalesce(getvariable({quote(VARIABLE)}), {root})" if movable else root
        listed = f"string_split({quote(';'.join(self.files))}, ';')"
        listed = f"list_transform({listed}, lambda x: {root} || '/' || x || {quote(f'/{table}.parquet')})"
        source = rows_of(f"coalesce(getvariable({quote(name)}), {listed})", alike=True)
        sql = selected(table, first.columns, source, first.moved, first.part, self.runs is None)
        return f"select * from ({sql}) where {' and '.join(bounds)}" if (bounds := self._bounds()) else sql

    def _bounds(self) -> list[str]:
        """Conditions that all of its rows meet."""
        if self.runs is None or not self.bounded:
            return []
        found = [f"run between {self.runs[0]} and {self.runs[1]}"]
        for key in BOUNDS:
            own = [known[key] for known in self.ranges if key in known]
            if len(own) == len(self.ranges):
                found.append(f"{key} between {min(first for first, _ in own)} and {max(last for _, last in own)}")
        return found


def scans(rows: Sequence[Apart]) -> list[Scan]:
    """How the rows apart of one table are read."""
    together = [row for row in rows if row.placed]
    found = [Scan(row, [f"{row.part}/{inside}" for inside in row.files]) for row in rows if not row.placed]
    for columns in sorted({tuple(row.columns) for row in together}):
        own = sorted((row for row in together if tuple(row.columns) == columns), key=lambda row: row.run)
        files = [(row, f"{row.part}/{inside}", row.ranges.get(inside, {})) for row in own for inside in row.files]
        size = max(_LEAST, -(-len(files) // (_SCANS if own[0].ranges else _SCANS // 2)))
        for at in range(0, len(files), size):
            of, paths, ranges = zip(*files[at : at + size])
            found.append(Scan(of[0], paths, ranges, (of[0].run, of[-1].run), len(files) > size))
    return found


def shown(con: duckdb.DuckDBPyConnection, rows: Sequence[Apart], folder: Path, movable: bool = False) -> dict[str, list[str]]:
    """{table: SQL for its rows apart}. Until `all_files`, queries of this connection look at one file of each scan: for making
    views, which takes as long as there are files otherwise."""
    found: dict[str, list[str]] = {}
    files: list[str] = []
    for table in sorted({row.table for row in rows}):
        for number, scan in enumerate(scans([row for row in rows if row.table == table])):
            name = f"{_ONE}_{table}_{number}"
            file = escape(f"{named(folder)}/{scan.files[0]}/{table}.parquet")
            files.append(f"set variable {name} = {literals([file])}")
            found.setdefault(table, []).append(scan.sql(folder, name, movable))
    con.execute("; ".join(files) or "select 1")
    return found


def reach(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """From now on the views in the file look for rows in `folder`, also where it lay elsewhere when they were made."""
    con.execute(f"set variable {VARIABLE} = {quote(escape(named(folder)))}")


def all_files(con: duckdb.DuckDBPyConnection) -> None:
    """From now on queries look at all files again."""
    for (name,) in con.execute("select name from duckdb_variables() where starts_with(name, ?)", [_ONE]).fetchall():
        con.execute(f"reset variable {name}")
