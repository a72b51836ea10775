"""What finishing a run costs beside tracing it, and what adding a run costs at several sizes of store.

    python -m benchmarks.speed.finishing [--decisions 16000000] [--gigabytes 1 10 50]

Stores of many gigabytes are made of hard links to the shards of one run, described each time as a run of its own with the
ranges of keys that it would have: they take the room of one. Their rows are those of the first, which adding does not read. The
control adds twice at the smallest size.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import torch

import moescope
from benchmarks.speed.ingest import SHAPES
from benchmarks.synthetic import RoutingOnly
from moescope.store.write import apart
from moescope.store.write.change import change_store
from moescope.store.write.unfinished_run import KEPT, parts_folder

_ADDED = ("runs", "routers", "experts", "load_rollup", "decision_rollup", "coactivation_rollup", "transition_rollup")


def finish(shape: str, store: Path, decisions: int) -> dict[str, float]:
    """Trace about `decisions` into `store`: seconds until all is durable, and until it is finished; memory in GB."""
    layers, experts, top_k = SHAPES[shape]
    model = RoutingOnly(layers, experts, top_k, 4096).eval()
    with torch.no_grad():
        tracer = moescope.Tracer(model, store).__enter__()
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(max(1, decisions // (layers * 4096))):
            model(torch.randint(0, 4000, (8, 512), generator=torch.Generator().manual_seed(number)))
        tracer.flush()
        tracer._sink.settle()
        traced = time.perf_counter() - wall, time.process_time() - cpu
        tracer.__exit__(None, None, None)
    both = time.perf_counter() - wall, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"traced wall": traced[0], "traced cpu": traced[1], "finished wall": both[0], "finished cpu": both[1]}
    return found | {"ratio wall": both[0] / traced[0], "ratio cpu": both[1] / traced[1], "memory": memory}


def grow(store: Path, gigabytes: float) -> float:
    """Describe run 0 of a store again and again, its shards linked, until that many GB are described; gives how many are."""
    folder = parts_folder(store)
    with duckdb.connect(str(store), read_only=True) as con:
        ((part,),) = con.execute("select distinct part from apart where run = 0").fetchall()
        ((runs,),) = con.execute("select count(*) from runs").fetchall()
    size = sum(file.stat().st_size for file in (folder / part).rglob("*.parquet"))
    many = range(runs, max(runs, round(gigabytes * 1e9 / size)))
    for number in many:
        _link(folder / part, folder / f"{number:012x}")
    change_store(store, lambda con: [_again(con, part, number) for number in many])
    return size * max(runs, many.stop) / 1e9


def _link(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        place = target / file.relative_to(source)
        if file.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, place)
    assert (target / KEPT).exists()


def _again(con: duckdb.DuckDBPyConnection, part: str, number: int) -> None:
    """Run 0 once more as run `number`."""
    ends = con.execute(
        "select max((ends->>'forward')::bigint), max((ends->>'sequence')::bigint), max((ends->>'token')::bigint) from apart"
    ).fetchall()[0]
    ((routers,),) = con.execute("select max(router) + 1 from routers").fetchall()
    for table in _ADDED:
        names = {name for (name, *_) in con.execute(f"describe {table}").fetchall()}
        new = [f"{n} + {routers} as {n}" for n in ("router", "next_router") if n in names]
        new += [f"{number} as run"] * ("run" in names) + [f"'{number:012x}' as uid"] * (table == "runs")
        where = "run = 0" if "run" in names else "router in (select router from routers where run = 0)"
        con.execute(f"insert into {table} select * replace ({', '.join(new)}) from {table} where {where}")
    keys = dict(zip(("forward", "sequence", "token"), ends))
    moved = json.dumps({**dict.fromkeys(keys, 0), "run": number, "router": 0, "model": 0})
    own = con.execute('select "table", columns, files, ends from apart where part = ?', [part]).fetchall()
    for table, columns, files, first in own:
        until = json.dumps({key: keys[key] + end for key, end in json.loads(first).items()})
        row = f"{number:012x}", number, table, moved, until, columns, json.dumps(_ranged(json.loads(files), keys))
        con.execute("insert into apart values (?, ?, ?, ?, ?, ?, ?)", row)


def _ranged(files: dict[str, Any], keys: dict[str, int]) -> dict[str, Any]:
    """The files of run 0 with the ranges that they would have as another one, whose keys begin at `keys`."""
    return {
        folder: [size, checksum, {key: [first + keys[key], last + keys[key]] for key, (first, last) in ranges.items()}]
        for folder, (size, checksum, ranges) in files.items()
    }


def adding(store: Path, decisions: int = 1_000_000) -> tuple[float, float]:
    """(wall, CPU) seconds that it takes to finish a run of so many top-2 decisions in `store`."""
    found = finish("top-2 of 8", store, decisions)
    return found["finished wall"] - found["traced wall"], found["finished cpu"] - found["traced cpu"]


def marks(decisions: int, sizes: list[float]) -> dict[str, Any]:
    """All figures."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for shape in SHAPES:
            few = decisions if "top-2" in shape else decisions // 2
            finish(shape, Path(folder) / f"warm {shape}.duckdb", 1)
            found[f"finished ÷ traced, {shape}"] = [finish(shape, Path(folder) / f"{n} {shape}.duckdb", few) for n in range(2)]
        store = Path(folder) / "0 top-8 of 64.duckdb"
        found["adding 1 M to one small run, twice"] = [adding(Path(folder) / "warm top-2 of 8.duckdb") for _ in range(2)]
        for size in sizes:
            described = grow(store, size)
            found[f"adding 1 M at {described:.1f} GB"] = [adding(store) for _ in range(3)]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=16_000_000)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1, 10, 50])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(
        json.dumps(
            {**marks(chosen.decisions, chosen.gigabytes), "from bytes": apart.SETTING, "load": os.getloadavg()}, indent=1
        )
    )


if __name__ == "__main__":
    main()
