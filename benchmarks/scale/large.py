"""A store of many gigabytes: the run of a store copied until it is so large, then opened and asked.

python -m benchmarks.scale.large soak.duckdb large.duckdb [--gigabytes 10]
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import duckdb

from benchmarks.speed.queries import ask
from moescope.store.write.change import change_store

KEYS = ("run", "router", "next_router", "forward", "sequence", "token", "parent")


def double(con: duckdb.DuckDBPyConnection) -> None:
    """Every run once more, with keys of its own."""
    con.execute("set threads = 1")
    tables = [
        name for (name,) in con.execute("select table_name from duckdb_tables() where database_name = 'store'").fetchall()
    ]
    free = {key: con.execute(f"select max({key}) + 1 from {key}s").fetchall()[0][0] for key in KEYS if key in
            ("run", "router", "forward", "sequence", "token")}  # fmt: skip
    free |= {"next_router": free["router"], "parent": free["token"]}
    for table in tables:
        columns = {name for (name, *_) in con.execute(f"describe {table}").fetchall()}
        moved = [f"({key} + {free[key]})::uinteger as {key}" for key in KEYS if key in columns]
        if not moved or table in ("models", "vocab", "meta"):
            continue
        if table == "runs":
            moved.append(f"uid || '-{free['run']}' as uid")
        con.execute(f"insert into {table} select * replace ({', '.join(moved)}) from {table}")


def main() -> None:
    """Grow, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--gigabytes", type=float, default=10)
    chosen = parser.parse_args()
    if not chosen.store.exists():
        shutil.copyfile(chosen.source, chosen.store)
    while chosen.store.stat().st_size < chosen.gigabytes * 1e9:
        change_store(chosen.store, double)
    size = chosen.store.stat().st_size
    print(
        json.dumps(
            {"gigabytes": size / 1e9, "median and largest s": ask(chosen.store, 3, scan=False), "load": os.getloadavg()[0]},
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
