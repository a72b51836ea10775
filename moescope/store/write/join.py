"""Join an unfinished run to its store; a part whose name is in `meta` as joined is left-over and ignored.

The rows of a large run stay in its shards, which the file describes from then on (apart.py).
"""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from ...errors import MoescopeError, StoreError
from .. import column_fit
from ..files.durable import exclusive, reason
from ..files.interrupts import defer_interrupt
from ..migrations import today
from ..physical import tables
from ..schema import here, is_bulk, is_split, refresh_views
from ..sums.definitions import ADDED, add_rollups, add_vocabulary
from ..sums.words import Words
from . import apart
from .change import clean_up, replace
from .projection import projection
from .scans import all_files, reach
from .top_k import settle_top_k
from .unfinished_run import COUNTED, UnfinishedRun, parts_folder
from .vocabulary import count_vocabulary

_AT_ONCE = 200  # rows


def join_run(store: Path, part: UnfinishedRun, final: Mapping[str, Any], words: Words | None = None) -> int:
    """Join `part` to `store` with the final columns of its run, and `words` that were counted meanwhile; gives the run's
    number. The part goes once nobody reads it, or stays for good where it is large."""
    numbers: list[int] = []
    safe = f"its shards are safe: then run moescope recover {store}, or trace again with --resume"

    def change(con: duckdb.DuckDBPyConnection) -> None:
        numbers[:] = [_insert(con, store, part, final, large)]

    try:
        large = apart.stays(part)
        count_vocabulary(part, words)
        with defer_interrupt(), exclusive(store):
            replace(store, change, uid=part.head.get("store"))
            clean_up(store)
    except (OSError, duckdb.Error) as error:
        raise StoreError(f"joining the run to {store} failed ({reason(error)}); make room; {safe}") from error
    except MoescopeError as error:
        raise StoreError(f"the run could not be joined: {error}; {safe}") from error
    return numbers[0]


def _insert(con: duckdb.DuckDBPyConnection, store: Path, part: UnfinishedRun, final: Mapping[str, Any], large: bool) -> int:
    base = offsets(con, part)
    insert_head(con, part, base, final)
    reach(con, parts_folder(store))
    if large and not is_split(con):
        apart.split(con)
    rows = {table: projection(con, part, table, base) for table in part.tables()}
    grown = insert_tables(con, {table: sql for table, sql in rows.items() if not (large and is_bulk(table))})
    if large:
        apart.describe(con, part, base)
    else:
        con.execute("insert into meta values ('joined', ?)", [part.path.name])
    if is_split(con) and (large or grown):
        apart.show(con, store, parts_folder(store), None if large else grown)
    refresh_views(con)
    sums, own = kept_sums(con, part, base), None if "continues" in part.head else rows
    if sums is None or own is None:  # else nothing is read through the views
        all_files(con)
    add_rollups(con, base["run"], sums)
    count_rows(con, base["run"], own)
    settle_top_k(con, base["run"], own)
    all_files(con)
    _vocabulary(con, part, base, large)
    return base["run"]


def insert_tables(con: duckdb.DuckDBPyConnection, rows: Mapping[str, str]) -> set[str]:
    """Insert into each table of the file what its SQL selects; gives the tables that have columns since which they had not."""
    grown = set()
    con.execute("set threads = 1")  # with more, row groups are put together anew at the end, and leave holes in the file
    for table, sql in sorted(rows.items()):
        target, (_, _, width) = here(con, table), table.rpartition("_")
        if tables.is_routed(table):
            names = {name for (name, *_) in con.execute(f"describe {sql}").fetchall()}
            grown |= {table} if tables.ensure_table(con, target, int(width), names) else set()
        con.execute(f"insert into {target} by name {sql}")
    con.execute("reset threads")
    return grown


def _vocabulary(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, base: Mapping[str, int], large: bool) -> None:
    """What `vocab_rollup` says of the run: as it was counted when the run was finished, or by its rows."""
    run, sums = base["run"], apart.sums(part, base)
    if sums is None:
        con.execute("delete from apart where run = ? and \"table\" = 'vocab_rollup'", [run])
        add_vocabulary(con, run)
    elif not large:
        insert_tables(con, {"vocab_rollup": sums})


def offsets(con: duckdb.DuckDBPyConnection, part: UnfinishedRun) -> dict[str, int]:
    """What to add to each kind of key of `part`, so that it joins the rows in sight of `con`."""
    if continues := part.head.get("continues"):
        base = {"run": continues["run"], "router": continues["router"], "model": continues["model"]}
    else:
        base = {key: _free(con, f"{key}s", key) for key in ("run", "router")} | {"model": _model(con, part)}
    first = part.head.get("continues", {}).get("next", {})
    return base | {key: _free(con, f"{key}s", key) - first.get(key, 0) for key in COUNTED}


def _free(con: duckdb.DuckDBPyConnection, table: str, key: str) -> int:
    """The first free number, by the rows in the file and what it says of those apart: these are not read."""
    taken = f"select max({key}) + 1 as free from {here(con, table)}"
    if key in COUNTED:
        taken += f" union all select max((ends->>'{key}')::ubigint) from apart"
    return con.execute(f"select coalesce(max(free), 0)::bigint from ({taken})").fetchall()[0][0]


def _model(con: duckdb.DuckDBPyConnection, part: UnfinishedRun) -> int:
    model = part.head["model"]
    same = con.execute(
        "select model from models where weights_sha256 = ? and name = ? and dtype is not distinct from ?",
        [model["weights_sha256"], model["name"], model.get("dtype")],
    ).fetchall()
    return same[0][0] if same else _free(con, "models", "model")


def insert_head(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, base: Mapping[str, int], final: Mapping[str, Any]) -> None:
    """The rows of the run, its model, routers and experts."""
    began = {name: value for name, value in part.head["run"].items() if name != "key"}
    run = {**began, **final, "run": base["run"], "model": base["model"], "progress": _progress(part, final)}
    con.execute("delete from runs where run = ?", [base["run"]])
    insert_rows(con, "runs", [run])
    if not con.execute("select 1 from models where model = ?", [base["model"]]).fetchall():
        insert_rows(con, "models", [{**part.head["model"], "model": base["model"]}])
    if "continues" not in part.head:
        move = {"router": base["router"]}
        insert_rows(con, "routers", [_moved(today("routers", r), move) | {"run": base["run"]} for r in part.head["routers"]])
        insert_rows(con, "experts", [_moved(today("experts", e), move) for e in part.head["experts"]])


def _progress(part: UnfinishedRun, final: Mapping[str, Any]) -> dict[str, Any]:
    """What `runs.progress` keeps: what it takes to resume goes once the run is complete, all but the key of its plan."""
    kept = {n: v for n, v in final.get("progress", {}).items() if final["status"] != "complete" or n not in ("next", "resume")}
    key = part.head["run"].get("key")
    return kept | ({"key": key} if key else {})


def _moved(row: Mapping[str, Any], move: Mapping[str, int]) -> dict[str, Any]:
    return {key: value + move.get(key, 0) if key in move else value for key, value in row.items()}


def insert_rows(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert dicts by column name; dicts and lists become JSON. InputError if a value does not fit its column.

    Rows of the same columns go in together, some hundreds a statement: one statement each takes seconds for a large model.
    """
    fitting = [column_fit.row(table, row) for row in rows]
    for names, alike in groupby(fitting, key=tuple):
        together, columns = list(alike), ", ".join(f'"{name}"' for name in names)
        for some in (together[at : at + _AT_ONCE] for at in range(0, len(together), _AT_ONCE)):
            places = ", ".join([f"({', '.join('?' * len(names))})"] * len(some))
            con.execute(f"insert into {table} ({columns}) values {places}", [value for row in some for value in row.values()])


def kept_sums(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, base: Mapping[str, int]) -> dict[str, str] | None:
    """{rollup: SQL for the sums of its shards}, or None where they must be counted from the rows."""
    if not part.counted():
        return None
    return {name: projection(con, part, f"{name}_rollup", base) for name in ADDED if part.files(f"{name}_rollup")}


def count_rows(con: duckdb.DuckDBPyConnection, run: int, rows: Mapping[str, str] | None = None) -> None:
    """Fill in the counts of `runs`: of routed rows from the kept sums, of the rest from the rows; `rows`: all of them (SQL by
    table), where they are known."""
    counts = {table: f"select count(*) from {table} where run = {run}" for table in ("forwards", "sequences", "tokens")}
    if rows is not None:
        counts = {table: f"select count(*) from ({rows[table]})" if table in rows else "0" for table in counts}
    counts["decisions"] = f"select coalesce(sum(decisions), 0) from decision_rollup where run = {run}"
    counts["assignments"] = f"select coalesce(sum(assignments + dropped), 0) from load_rollup where run = {run}"
    con.execute(f"update runs set {', '.join(f'{name} = ({sql})' for name, sql in counts.items())} where run = {run}")
