"""Reliability under load: many decisions through the real tracer, two readers beside it, every decision counted twice.

    python -m benchmarks.scale.soak [--decisions 100000000] [--store soak.duckdb] [--keep]

The model counts what it hands out; the store must say the same, expert by expert. Memory is watched, two processes open the
store again and again while it grows, and the everyday questions are asked of the finished file.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import moescope
from benchmarks.measure import device, resident, spent
from benchmarks.speed.queries import ask
from benchmarks.synthetic import RoutingOnly
from moescope.tracer import SequenceInfo

LAYERS, EXPERTS, TOP_K, TOKENS, BATCH = 8, 8, 2, 4096, 8
DOMAINS = ("code", "law", "prose", "mathematics", "german")


def watch(store: Path, stop: Any, seen: Any) -> None:
    """Open the growing store again and again: what it shows never shrinks and is whole."""
    last = 0
    while not stop.is_set():
        began = time.perf_counter()
        with moescope.open(store) as opened:
            rows = opened.rows("select coalesce(sum(decisions), 0), coalesce(sum(selected), 0) from decision_rollup")
            tokens = opened.rows("select coalesce(sum(tokens), 0) from runs")[0][0]
        count, selected = (int(value) for value in rows[0])
        if count < last or selected != TOP_K * count or count != LAYERS * tokens:
            raise AssertionError(f"a reader saw {count} decisions after {last}, {selected} assignments, {tokens} tokens")
        last = count
        seen.put((count, time.perf_counter() - began))
        time.sleep(0.5)


def expected(model: RoutingOnly, before: list[int]) -> np.ndarray:
    """(layers, experts) assignments that the model handed out since its routers had been called `before` times."""
    counts = np.zeros((LAYERS, EXPERTS), np.int64)
    for layer, start in zip(range(LAYERS), before):
        router = model.layers[layer].gate
        for call in range(start + 1, router.calls + 1):
            counts[layer] += np.bincount(
                router.prepared[call % len(router.prepared)][2].reshape(-1).cpu().numpy(), minlength=EXPERTS
            )
    return counts


def check(store: Path, counts: np.ndarray, forwards: int) -> None:
    """AssertionError if the rows or kept sums are not `counts` (routers, experts), or a decision is missing or doubled."""
    with moescope.open(store) as opened:
        rows = opened.sql("select router, expert, count(*) as n from assignments group by all").fetchnumpy()
        stored, kept = np.zeros_like(counts), np.zeros_like(counts)
        stored[rows["router"], rows["expert"]] = rows["n"]
        rows = opened.sql("select router, expert, assignments from load_rollup").fetchnumpy()
        kept[rows["router"], rows["expert"]] = rows["assignments"]
        distinct = opened.rows("select count(*) from (select 1 from decisions group by router, token)")[0][0]
    assert (stored == counts).all(), "decisions were lost or doubled"
    assert (kept == counts).all(), "the kept sums are off"
    assert distinct == forwards * LAYERS * TOKENS, "some decision is there twice"


def soak(store: Path, decisions: int, readers: int = 2) -> dict[str, Any]:
    """Trace, count, and ask; AssertionError where a decision was lost or doubled."""
    model = RoutingOnly(LAYERS, EXPERTS, TOP_K, TOKENS).eval()
    context = multiprocessing.get_context("spawn")
    stop, seen, memory = context.Event(), context.Queue(), []
    watchers = [context.Process(target=watch, args=(store, stop, seen)) for _ in range(readers)]
    infos = [SequenceInfo(labels={"domain": domain}) for domain in (DOMAINS * BATCH)[:BATCH]]
    forwards = decisions // (LAYERS * TOKENS)
    ids = torch.from_numpy(np.minimum(np.random.default_rng(0).zipf(1.3, (64, BATCH, TOKENS // BATCH)), 30_000))
    with torch.no_grad(), spent() as all_of_it, moescope.Tracer(model, store, name="soak") as tracer:
        before = [layer.gate.calls for layer in model.layers]
        for watcher in watchers:
            watcher.start()
        with spent() as traced:
            for number in range(forwards):
                with tracer.batch(infos):
                    model(ids[number % len(ids)].to(device()))
                memory.append(resident())
        stop.set()
        found = [seen.get() for _ in range(seen.qsize())]
        for watcher in watchers:
            watcher.join()
    assert all(watcher.exitcode == 0 for watcher in watchers), "a reader saw something that was not whole"
    counts = expected(model, before)
    check(store, counts, forwards)
    steady = memory[len(memory) // 10 :]
    half = len(steady) // 2
    return {
        "decisions": int(counts.sum() // TOP_K),
        "bytes per decision": store.stat().st_size / (counts.sum() / TOP_K),
        "CPU seconds traced": traced.cpu,
        "CPU seconds in all": all_of_it.cpu,
        "wall seconds traced": traced.wall,
        "wall seconds in all": all_of_it.wall,
        "memory, MB": [round(m / 1e6) for m in (steady[0], max(steady), steady[-1])],
        "peak memory with the join, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "memory, second half over first": statistics.median(steady[half:]) / statistics.median(steady[:half]),
        "readers": {"looks": len(found), "slowest, s": max((took for _, took in found), default=None)},
        "questions, median and largest s": ask(store),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=100_000_000)
    parser.add_argument("--store", type=Path, default=Path("soak.duckdb"))
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(soak(chosen.store, chosen.decisions), indent=1))
    if not chosen.keep:
        chosen.store.unlink()


if __name__ == "__main__":
    main()
