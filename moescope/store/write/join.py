"""Join an unfinished run to its store; a part whose name is in `meta` as joined is left-over and ignored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from ...decisions import MAX_WIDTH
from ...errors import MoescopeError, StoreError
from .. import column_fit
from ..files.durable import exclusive, reason
from ..files.interrupts import defer_interrupt
from ..files.paths import parquet
from ..migrations import today
from ..physical import tables
from ..schema import refresh_views
from ..sums.definitions import ADDED, add_rollups, add_vocabulary
from ..trust import expected
from .change import clean_up, replace
from .top_k import settle_top_k
from .unfinished_run import KEYS, UnfinishedRun

_SPACE = {"next_router": "router", "parent": "token"}


def join_run(store: Path, part: UnfinishedRun, final: Mapping[str, Any]) -> int:
    """Join `part` to `store` with the final columns of its run; gives the run's number. The part goes once nobody reads it."""
    numbers: list[int] = []
    safe = f"its shards are safe: then run moescope recover {store}, or trace again with --resume"

    def change(con: duckdb.DuckDBPyConnection) -> None:
        numbers[:] = [_insert(con, part, final)]

    try:
        with defer_interrupt(), exclusive(store):
            replace(store, change, uid=part.head.get("store"), reach=part.path)
            clean_up(store, {part.path.name})
    except (OSError, duckdb.Error) as error:
        raise StoreError(f"joining the run to {store} failed ({reason(error)}); make room; {safe}") from error
    except MoescopeError as error:
        raise StoreError(f"the run could not be joined: {error}; {safe}") from error
    return numbers[0]


def _insert(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, final: Mapping[str, Any]) -> int:
    base = offsets(con, part)
    insert_head(con, part, base, final)
    con.execute("set threads = 1")  # with more, row groups are put together anew at the end, and leave holes in the file
    for table in sorted(part.tables()):
        kind, _, width = table.rpartition("_")
        rows = projection(con, part, table, base)
        if kind in ("routes", "decided"):
            names = {name for (name, *_) in con.execute(f"describe {rows}").fetchall()}
            tables.ensure_table(con, int(width), names, kind)
        con.execute(f"insert into {table} by name {rows}")
    con.execute("reset threads")
    refresh_views(con)
    add_rollups(con, base["run"], kept_sums(con, part, base))
    count_rows(con, base["run"])
    settle_top_k(con, base["run"])
    add_vocabulary(con, base["run"])
    con.execute("insert into meta values ('joined', ?)", [part.path.name])
    return base["run"]


def offsets(con: duckdb.DuckDBPyConnection, part: UnfinishedRun) -> dict[str, int]:
    """What to add to each kind of key of `part`, so that it joins the rows in sight of `con`."""
    if continues := part.head.get("continues"):
        base = {"run": continues["run"], "router": continues["router"], "model": continues["model"]}
    else:
        base = {key: _free(con, f"{key}s", key) for key in ("run", "router")} | {"model": _model(con, part)}
    first = part.head.get("continues", {}).get("next", {})
    return base | {key: _free(con, f"{key}s", key) - first.get(key, 0) for key in ("forward", "sequence", "token")}


def _free(con: duckdb.DuckDBPyConnection, table: str, key: str) -> int:
    return con.execute(f"select coalesce(max({key}) + 1, 0) from {table}").fetchall()[0][0]


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
    """Insert dicts by column name; dicts and lists become JSON. InputError if a value does not fit its column."""
    for row in rows:
        fitting = column_fit.row(table, row)
        columns = ", ".join(f'"{name}"' for name in fitting)
        con.execute(f"insert into {table} ({columns}) values ({', '.join('?' * len(fitting))})", list(fitting.values()))


def projection(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, table: str, base: Mapping[str, int]) -> str:
    """SQL over the Parquet files of a table with the keys moved by `base`."""
    source = parquet(part.files(table))
    names = [name for (name, *_) in con.execute(f"describe from {source}").fetchall()]
    moved = {key: f"({key}::uinteger + {base[_SPACE.get(key, key)]})::uinteger" for key in KEYS if key != "run"}
    if unknown := [name for name in names if name not in moved and _type(table, name) is None]:
        raise StoreError(f"the shards of {part.path.name} have a column {unknown[0][:40]!r}, which {table} has not")
    columns = [f"{moved[name]} as {name}" if name in moved else _as(table, name) for name in names]
    sql = f"select {', '.join(columns)} from {source}"
    if table == "vocab":
        known = f"vocab v on (v.model = {base['model']} and v.vocab_id = n.vocab_id)"
        return f"select distinct {base['model']} as model, vocab_id, text from ({sql}) n anti join {known}"
    return f"select {base['run']} as run, * from ({sql})" if table in _RUN else sql


def _type(table: str, name: str) -> str | None:
    """The type of a column, "" where it is as it comes; None if the table has no such column."""
    if table.endswith("_rollup"):
        return ""
    return tables.column_type(name) if tables.is_routed(table) else expected()[table].get(name)


def _as(table: str, name: str) -> str:
    """A column in the table's type, so that no shard changes the type that others are seen in."""
    kind, quoted = _type(table, name), '"' + name.replace('"', '""') + '"'
    return f"{quoted}::{kind} as {quoted}" if kind else quoted


def kept_sums(con: duckdb.DuckDBPyConnection, part: UnfinishedRun, base: Mapping[str, int]) -> dict[str, str] | None:
    """{rollup: SQL for the sums of its shards}, or None where they must be counted from the rows."""
    if not part.counted():
        return None
    return {name: projection(con, part, f"{name}_rollup", base) for name in ADDED if part.files(f"{name}_rollup")}


_RUN = {
    "sequences",
    "pictures",
    "tokens",
    "forwards",
    "conditions",
    "pools",
    "logits",
    "decisions_long",
    "assignments_long",
    "measures",
}
_RUN |= {f"{kind}_{k}" for kind in ("routes", "decided") for k in range(1, MAX_WIDTH + 1)}


def count_rows(con: duckdb.DuckDBPyConnection, run: int) -> None:
    """Fill in the counts of `runs`: of routed rows from the kept sums, of the rest from the rows."""
    counts = {table: f"select count(*) from {table} where run = {run}" for table in ("forwards", "sequences", "tokens")}
    counts["decisions"] = f"select coalesce(sum(decisions), 0) from decision_rollup where run = {run}"
    counts["assignments"] = f"select coalesce(sum(assignments + dropped), 0) from load_rollup where run = {run}"
    con.execute(f"update runs set {', '.join(f'{name} = ({sql})' for name, sql in counts.items())} where run = {run}")
