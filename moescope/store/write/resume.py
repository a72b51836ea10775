"""Find a run again by its plan, and take one up that was joined to its store before it was complete."""

import json
from pathlib import Path
from typing import Any

import duckdb

from ...errors import StoreError
from ..connect import connect, identity, identity_of, joined, lying_apart
from ..files.durable import write_atomic
from ..files.paths import real
from ..trust import tables_of
from .beside import Beside, beside, look
from .unfinished_run import UnfinishedRun, unfinished_runs

_KEPT = {"routers": "run = $run", "experts": "router in (select router from base.main.routers where run = $run)"}


def unjoined(store: Path) -> Beside:
    """Runs that are being traced or were cut off, oldest first, those already in the file left out; and what is left aside."""
    looked = look(store)
    with connect(store) as con:
        return beside(store, looked, identity(con), joined(con) | lying_apart(con))


def unfinished(store: Path) -> list[UnfinishedRun]:
    """Runs of `unjoined`."""
    return unjoined(store).parts


def orphans(store: Path) -> list[UnfinishedRun]:
    """Runs beside a store that is not there."""
    return [] if real(store).exists() else unfinished_runs(store, kept=True)


def adopt(store: Path, part: UnfinishedRun) -> UnfinishedRun:
    """Make a run that is of another store one of `store`."""
    write_atomic(part.path / "head.json", json.dumps({**part.head, "store": identity_of(store)}))
    return UnfinishedRun(part.path)


def planned(store: Path, key: str) -> tuple[int, str, str | None] | None:
    """(run, status, hash of its data) of the last run in the file whose plan has this key."""
    with connect(store) as con:
        sql = "select run, status, dataset_sha256 from base.main.runs where progress->>'key' = ? order by run desc limit 1"
        return next(iter(con.execute(sql, [key]).fetchall()), None)


def head_of(store: Path, run: int) -> dict[str, Any]:
    """The head of a part that continues `run`, with keys that count from 0 within the run, as a new run's has."""
    with connect(store) as con:
        row = _rows(con, "runs", "run = $run", run)[0]
        model = _rows(con, "models", f"model = {row['model']}", run)[0]
        routers, experts = (_rows(con, table, where, run) for table, where in _KEPT.items())
    progress = row["progress"] or {}
    if row["status"] != "interrupted" or "next" not in progress:
        raise StoreError(f"run {run} of {store} is {row['status']}, so there is nothing to go on with; trace without --resume")
    first = min(router["router"] for router in routers)
    for own in [*routers, *experts]:
        own["router"] -= first
    continues = {"run": run, "router": first, "model": row["model"], "next": progress["next"], "progress": progress}
    began = {**row, "status": "running", "finished": None, "key": progress.get("key")}
    return {"run": began, "model": model, "routers": routers, "experts": experts, "continues": continues}


def _rows(con: duckdb.DuckDBPyConnection, table: str, where: str, run: int) -> list[dict[str, Any]]:
    """Rows as dicts, JSON columns as what they hold."""
    parameters = {"run": run} if "$run" in where else {}
    columns = ", ".join(f'{sql} as "{name}"' for name, sql in tables_of(con, "the store")[table].items())
    found = con.execute(f"select {columns} from base.main.{table} where {where} order by all", parameters)
    names, kinds = zip(*((d[0], str(d[1])) for d in found.description))
    return [
        {n: json.loads(v) if k == "JSON" and v is not None else v for n, k, v in zip(names, kinds, row)}
        for row in found.fetchall()
    ]
