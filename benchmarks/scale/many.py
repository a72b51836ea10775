"""What many workers cost and win: CPU seconds and bytes of every step for so many decisions, and two workers against one.

python -m benchmarks.scale.many cost [--decisions 1000000 --decisions 10000000] [--layers 58] [--experts 256] [--top-k 8]
python -m benchmarks.scale.many workers [--rounds 5]    one worker on one core, the same on another (the control: 1.0 where the
    machine is quiet), two on both; alternating, medians of the tracing time, with the share that other programs took
"""

import json
import os
import resource
import statistics
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
from moescope.store.write.many.stretches import Gathering, StretchWriter

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


def once(folder: Path, workers: int, name: str, cores: set[int]) -> dict[str, float]:
    """A trace of the shipped Mixtral on these cores alone: wall and CPU seconds of all of it, its own seconds (attach to
    end), and the share of these cores that other programs used meanwhile."""
    store = folder / f"{name}.duckdb"
    call = [sys.executable, "-m", "moescope", "trace", "mixtral", "--data", str(folder / "texts.jsonl"), "--store", str(store)]
    call += ["-q", "--threads", "1", "--batch-size", "2", *(["--workers", str(workers)] if workers > 1 else [])]
    before, busy, began = resource.getrusage(resource.RUSAGE_CHILDREN), _busy(cores), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(call, check=True, env=environment, preexec_fn=partial(os.sched_setaffinity, 0, cores))
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    with moescope.open(store) as opened:
        ((own, model, tokens),) = opened.rows("select seconds, model_seconds, tokens from runs")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    others = max(0.0, _busy(cores) - busy - used) / (wall * len(cores))
    return {"wall": wall, "CPU": used, "tracing": own, "model": model, "tokens": tokens, "others": others}


def _busy(cores: set[int]) -> float:
    """Seconds for which these cores did something, since the machine began."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    mine = [list(map(int, line[1:])) for line in lines if line[0] in {f"cpu{core}" for core in cores}]
    return sum(sum(ticks[:3]) + sum(ticks[5:8]) for ticks in mine) / os.sysconf("SC_CLK_TCK")


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
@click.option("--rounds", default=5)
@click.option("--times", default=8, help="The shipped texts so many times over.")
def _workers(rounds: int, times: int) -> None:
    one, other = sorted(os.sched_getaffinity(0))[:2]
    ways = {"one": (1, {one}), "one again": (1, {other}), "two": (2, {one, other})}
    found: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        texts = [json.dumps({"text": example.text}) for example in read("text").examples]
        (Path(folder) / "texts.jsonl").write_text("\n".join(texts * times))
        for number in range(rounds):
            for way, (workers, cores) in ways.items():
                took = once(Path(folder), workers, f"{number}-{way.replace(' ', '-')}", cores)
                found[way].append(took["tracing"])
                click.echo(json.dumps({"way": way, **{name: round(value, 3) for name, value in took.items()}}))
    middle = {way: statistics.median(seconds) for way, seconds in found.items()}
    said = {"one / one again (control)": middle["one"] / middle["one again"], "one / two": middle["one"] / middle["two"]}
    click.echo(json.dumps({name: round(value, 3) for name, value in said.items()}))


if __name__ == "__main__":
    command()
