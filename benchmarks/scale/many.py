"""What many workers cost and win: CPU seconds and bytes of every step for so many decisions, and two workers against one.

python -m benchmarks.scale.many cost [--decisions 1000000 --decisions 10000000] [--layers 58] [--experts 256] [--top-k 8]
python -m benchmarks.scale.many workers [--rounds 3]    (alternating, so that a busy machine is busy for both)
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import moescope
from moescope.decisions import columns_fixed_k
from moescope.inputs import read
from moescope.store.write.stretches import Gathering, StretchWriter

TOKENS = 4096  # of a stretch: 58 routers make 237,568 rows
LENGTH = 512


def head(layers: int, experts: int, top_k: int) -> dict[str, Any]:
    """Of a synthetic run."""
    names = {"stack": "decoder", "block_type": "ffn", "kind": "token_choice", "experts": experts, "top_k": top_k}
    routers = [{"router": r, "name": f"layers.{r}", "layer": r, **names} for r in range(layers)]
    return {
        "run": {"name": "synthetic", "started": "2026-01-01 00:00:00"},
        "model": {"name": "synthetic", "weights_sha256": "0"},
        "routers": routers,
        "experts": [{"router": r, "expert": e, "role": "routed"} for r in range(layers) for e in range(experts)],
    }


def fill(writer: StretchWriter, layers: int, experts: int, top_k: int, random: np.random.Generator, bare: bool) -> None:
    """One forward of TOKENS tokens: weights of float32 that add up to 1, no two alike; `bare`: as with --experts-only."""
    first, forward = writer.take("token", TOKENS), writer.take("forward", 1)
    sequence = writer.take("sequence", TOKENS // LENGTH)
    tokens = first + np.arange(TOKENS)
    weights = -np.sort(-random.dirichlet(np.ones(top_k), (layers, TOKENS)).astype(np.float32), -1)
    chosen = random.integers(experts, size=(layers, TOKENS, 1)) + np.cumsum(random.integers(1, 24, (layers, TOKENS, top_k)), -1)
    arrays: dict[str, Any] = {"experts": (chosen % experts).astype(np.int16), "weights": weights}
    arrays |= {name: random.random((layers, TOKENS), np.float32) for name in ("entropy", "log_sum_exp", "margin")}
    routers, none = np.arange(layers), np.zeros(layers, np.int64)
    rows = columns_fixed_k(arrays, np.broadcast_to(tokens, (layers, TOKENS)), routers, none, none + forward)
    left_out = {"entropy", "log_sum_exp", "margin", *(f"w{rank}" for rank in range(top_k))} if bare else set()
    writer.add(f"routes_{top_k}", {name: column for name, column in rows.items() if name not in left_out})
    writer.add("forwards", {"forward": [forward], "tokens": [TOKENS], "phase": ["prefill"]})
    vocab = (random.zipf(1.3, TOKENS) % 100_000).astype(np.int64)
    whose = sequence + np.arange(TOKENS) // LENGTH
    writer.add("tokens", {"token": tokens, "sequence": whose, "position": np.arange(TOKENS) % LENGTH, "vocab_id": vocab,
                          "unit": "text", "special": False, "generated": False})  # fmt: skip
    keys = sequence + np.arange(TOKENS // LENGTH)
    writer.add(
        "sequences", {"sequence": keys, "document": [writer.document(k) for k in keys], "stack": "decoder", "tokens": LENGTH}
    )


def cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process."""
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


def cost(folder: Path, decisions: int, layers: int, experts: int, top_k: int, bare: bool = False) -> dict[str, float]:
    """CPU microseconds and bytes for each decision, step by step."""
    described, random = head(layers, experts, top_k), np.random.default_rng(0)
    gathering = Gathering.create(folder / "store.duckdb", described)
    assert isinstance(gathering, Gathering)
    run = gathering.assign(1)
    stretches = max(1, decisions // (layers * TOKENS))
    writer, made, placed = StretchWriter(described), 0.0, 0.0
    keys = {"forward": 0, "sequence": 0, "token": 0}
    for number in range(stretches):
        writer.begin(False, keys)
        fill(writer, layers, experts, top_k, random, bare)
        keys = dict(writer.next)
        said = {"batches": number + 1, "sequences": keys["sequence"], "total": None, "resume": {"fired": list(range(layers))}}
        made += cpu(partial(writer.finish, run.place(number), said))[0]
        placed += cpu(gathering.seal)[0]
    rows = stretches * layers * TOKENS
    shards = sum(file.stat().st_size for file in run.folder.rglob("*.parquet"))
    joined, _ = cpu(lambda: gathering.close({"status": "complete"}, gathering.said))
    with moescope.open(folder / "store.duckdb") as store:
        asked, _ = cpu(lambda: store.rows("select router, expert, count(*) from assignments group by all"))
        kept, _ = cpu(lambda: store.rows("from expert_load"))
    steps = {"made": made, "placed": placed, "joined": joined, "scanned": asked, "kept sums": kept}
    each = {f"{name}, µs of CPU": round(1e6 * seconds / rows, 4) for name, seconds in steps.items()}
    size = (folder / "store.duckdb").stat().st_size
    return {"decisions": rows, "bytes in shards": round(shards / rows, 2), "bytes in the file": round(size / rows, 2)} | each


def once(folder: Path, workers: int, name: str) -> dict[str, float]:
    """A trace of the shipped Mixtral: wall and CPU seconds of all of it, and its own seconds (from attach to the end)."""
    store = folder / f"{name}.duckdb"
    call = [
        sys.executable,
        "-m",
        "moescope",
        "trace",
        "mixtral",
        "--data",
        "text",
        "--store",
        str(store),
        "-q",
        "--threads",
        "1",
    ]
    call += ["--batch-size", "2", *(["--workers", str(workers)] if workers > 1 else [])]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(call, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    with moescope.open(store) as opened:
        ((own, model, tokens),) = opened.rows("select seconds, model_seconds, tokens from runs")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "CPU": used, "tracing": own, "model": model, "tokens": tokens}


@click.group()
def command() -> None:
    """What many workers cost and win."""


@command.command(name="cost")
@click.option("--decisions", multiple=True, type=int, default=(1_000_000, 10_000_000))
@click.option("--layers", default=58)
@click.option("--experts", default=256)
@click.option("--top-k", default=8)
@click.option("--experts-only", "bare", is_flag=True)
def _cost(decisions: tuple[int, ...], layers: int, experts: int, top_k: int, bare: bool) -> None:
    for count in decisions:
        with tempfile.TemporaryDirectory() as folder:
            click.echo(json.dumps(cost(Path(folder), count, layers, experts, top_k, bare), ensure_ascii=False))


@command.command(name="workers")
@click.option("--rounds", default=3)
@click.option("--times", default=8, help="The shipped texts so many times over.")
def _workers(rounds: int, times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        texts = [json.dumps({"text": example.text}) for example in read("text").examples]
        (Path(folder) / "texts.jsonl").write_text("\n".join(texts * times))
        for number in range(rounds):
            for workers in (1, 2):
                found = once(Path(folder), workers, f"{number}-{workers}")
                said = {name: round(value, 1) for name, value in found.items()}
                click.echo(json.dumps({"workers": workers, "load": round(os.getloadavg()[0], 1), **said}))


if __name__ == "__main__":
    command()
