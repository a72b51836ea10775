"""python -m benchmarks.importing: decisions a CPU-second from what engines write into a store, and the memory that takes.

A model like OLMoE (16 layers, 64 experts, top-8), sequences of 512 tokens, random experts, so that nothing packs well.
`decoded`: read, decoded, checked by every rule; `durable`: and written as shards; `stored`: and joined to the store, which
counts its views' sums (the vocabulary's take most of that). Each form runs in a process of its own.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "builders" / "inputs"))
LAYERS, EXPERTS, TOP_K, TOKENS = 16, 64, 8, 512
FORMS = ("base64 npy", "raw int32", "JSON lists", "policylang JSON", "table Parquet")


def written(form: str, folder: Path, decisions: int) -> tuple[Path, Any]:
    """A capture of so many decisions, one request at a time."""
    import captures

    rng = np.random.default_rng(0)
    made = captures.Served(EXPERTS, TOP_K, LAYERS, family="olmoe")
    path = folder / ("a.parquet" if "Parquet" in form else "a.jsonl")
    count = max(2, round(decisions / (LAYERS * TOKENS)))
    if form == "policylang JSON":
        made.sequences = [_one(captures, rng) for _ in range(count)]
        return captures.policylang(path, made), made
    if form == "table Parquet":
        _table(path, [_one(captures, rng) for _ in range(count)])
        return path, made
    make = {"base64 npy": captures.vllm, "raw int32": captures.sglang, "JSON lists": captures.vllm_021}[form]
    with path.open("w") as file:
        for _ in range(count):
            made.sequences = [_one(captures, rng)]
            file.write(json.dumps(make(made)[0]) + "\n")
    return path, made


def _one(captures: Any, rng: np.random.Generator) -> Any:
    ids = rng.random((TOKENS, LAYERS, EXPERTS), np.float32).argpartition(TOP_K, -1)[..., :TOP_K]
    weights = -np.sort(-rng.random((TOKENS, LAYERS, TOP_K), np.float32), -1)
    tokens = np.minimum(rng.zipf(1.3, TOKENS + 1), 50_000)  # words are said as often as in texts, not evenly
    return captures.Sequence(tokens[:-65], tokens[-65:], ids.astype(np.int32), weights)


def _table(path: Path, sequences: list[Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parts = []
    for number, one in enumerate(sequences):
        token, layer = (x.reshape(-1) for x in np.mgrid[:TOKENS, :LAYERS])
        columns = {"sequence": np.full(len(token), number), "position": token, "layer": layer}
        parts.append(
            pa.table(columns | {"expert": list(one.experts.reshape(-1, TOP_K)), "weight": list(one.weights.reshape(-1, TOP_K))})
        )
    parquet.write_table(pa.concat_tables(parts), path)


def measured(form: str, decisions: int, found: Any) -> None:
    """Import once for Numba's sake, then measure; in a process of its own."""
    from moescope.importers._core import door

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, made = written(form, folder, 1)
        kind = {"policylang JSON": "policylang", "raw int32": "sglang", "table Parquet": "table"}.get(form, "vllm")
        model = made.saved(folder)
        door.import_captures([small], folder / "warm.duckdb", kind, model=model)
        path, made = written(form, folder, decisions)
        decoded, durable = (_rate(form, kind, path, model, folder / name if name else None) for name in ("", "b.duckdb"))
        before, cpu, wall = _most(), time.process_time(), time.perf_counter()
        door.import_captures([path], folder / "a.duckdb", kind, model=model)
        spent = time.process_time() - cpu
        found.put({
            "form": form, "decisions": _count(decisions), "file": path.stat().st_size, "decoded": decoded, "durable": durable,
            "stored": _count(decisions) / spent, "wall": time.perf_counter() - wall, "grew": _most() - before,
            "store": (folder / "a.duckdb").stat().st_size,
        })  # fmt: skip


def _count(decisions: int) -> int:
    return max(2, round(decisions / (LAYERS * TOKENS))) * LAYERS * TOKENS


def _rate(form: str, kind: str, path: Path, model: Path, store: Path | None) -> float:
    """Decisions a CPU-second: read and checked, and made durable where there is a store."""
    from moescope.importers._core import door
    from moescope.importers._core.captured import Captured
    from moescope.importers._core.rules import sound
    from moescope.importers._core.sink import Sink

    asked = door._ask(door.Wanted(model=model), kind, door.importers()[kind])
    sink = Sink(store, "a", kind, ["a"], asked.notes) if store is not None else None
    cpu, rows = time.process_time(), 0
    for item in door._items(door.importers()[kind], [path], asked):
        if isinstance(item, Captured) and asked.model is not None:
            rows += item.rows
            sink.add(item, asked.model) if sink is not None else sound(item, asked.model, asked.notes)
    if sink is not None:
        sink.commit()
    spent = time.process_time() - cpu
    if sink is not None:
        sink.discard()
    return rows * LAYERS / spent


def _most() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def rows_of(forms: tuple[str, ...], decisions: int) -> Iterator[dict[str, Any]]:
    """One row a form."""
    context = multiprocessing.get_context("spawn")
    for form in forms:
        found = context.Queue()
        process = context.Process(target=measured, args=(form, decisions, found))
        process.start()
        yield found.get(timeout=3600)
        process.join()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=2_000_000)
    parser.add_argument("--form", choices=FORMS, action="append")
    asked = parser.parse_args()
    names = ("decoded M/CPU-s", "durable", "stored", "B/decision", "grew MB")
    print(f"{'form':16} {'decisions':>11} {'file MB':>8} " + " ".join(f"{name:>15}" for name in names))
    for row in rows_of(tuple(asked.form or FORMS), asked.decisions):
        rates = [row[name] / 1e6 for name in ("decoded", "durable", "stored")]
        figures = [*rates, row["store"] / row["decisions"], row["grew"] / 1e6]
        start = f"{row['form']:16} {row['decisions']:>11,} {row['file'] / 1e6:>8.1f} "
        print(start + " ".join(f"{value:>15.2f}" for value in figures), flush=True)


if __name__ == "__main__":
    main()
