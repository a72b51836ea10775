"""Is a store bit for bit what was written, and if not, what of it can still be read?

First the seal over the whole file, then DuckDB's checksum of every block that a table uses: all columns of all tables are read.
Where every table can be read, the damage lies in space that none of them uses.
"""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from ..connect import check_store, connect, lying_apart
from ..files.paths import attach, confine, real
from ..files.seal import broken, has_seal, looks_like_a_store, rewritten
from ..write.apart import changed, lying
from ..write.resume import unjoined
from ..write.unfinished_run import parts_folder


@dataclass
class Damage:
    """What is wrong, in words; which tables cannot be read, and why; which can. `note`: what could not be looked at."""

    faults: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    readable: list[str] = field(default_factory=list)
    note: str | None = None

    def __bool__(self) -> bool:
        return bool(self.faults or self.unreadable)

    def __str__(self) -> str:
        if not self.readable and not self.unreadable:
            return "nothing of it can be read"
        if not self.unreadable:
            return f"all {len(self.readable)} tables can still be read, for it lies where none of them is"
        rest = f"the other {len(self.readable)} tables can" if self.readable else "nor can any other table"
        return f"{', '.join(self.unreadable)} cannot be read; {rest}"


def examine(store: Path) -> Damage:
    """Look at every byte of the file, and of the shards beside it. StoreError if it is not there, or was never a store."""
    path = real(store)
    if not looks_like_a_store(path):
        check_store(store)  # which says what it is
    found = Damage()
    if fault := broken(path):
        found.faults.append(f"the file: {fault}")
    if not has_seal(path):
        found.note = "without a checksum of the whole file, only what its tables use was looked at"
    elif rewritten(path):
        found.note = "another program wrote into the file since: only DuckDB's own checksums say something of it"
    _tables(store, path, found)
    if not found:
        check_store(store)
        _shards(store, found)
    return found


def _tables(store: Path, path: Path, found: Damage) -> None:
    try:
        with closing(_attached(path)) as con:
            columns = con.execute(
                "select table_name, list(column_name order by column_index) from duckdb_columns() join duckdb_tables() "
                "using (database_name, schema_name, table_name) where database_name = 'base' and column_default is null "
                "and schema_name = 'main' group by all order by all"
            ).fetchall()
    except duckdb.Error as error:
        if "Could not set lock" in str(error):
            check_store(store)
        found.faults.append(f"DuckDB cannot open it: {_words(error)}")
        return
    con = _attached(path)
    for table, names in columns:
        try:
            listed = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names)
            con.execute(f'select bit_xor(hash({listed})) from base.main."{table.replace(chr(34), chr(34) * 2)}"').fetchall()
            found.readable.append(table)
        except duckdb.Error as error:
            found.unreadable[table] = _words(error)
            con.close()
            con = _attached(path)  # an error can make the old one useless
    con.close()


def _attached(path: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    try:
        attach(con, path)
        confine(con)
    except BaseException:
        con.close()
        raise
    return con


def _shards(store: Path, found: Damage) -> None:
    with connect(store) as con:
        rows = lying(con, store, "base") if lying_apart(con) else []
    if lost := changed(parts_folder(store), rows):
        found.unreadable[f"run {lost[0]}"] = lost[1]
    for part in unjoined(store).parts:
        whole, fault = part.whole(deep=True, far=True)
        if fault:
            found.faults.append(f"unfinished run {part.path.name}: {fault}; its first {whole} shards are whole")


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
