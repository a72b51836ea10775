"""How fast the dashboard is on a large store: first page, interactions, memory of the server, in a real browser.

python -m benchmarks.scale.dashboard [--decisions 20000000] [--store big.duckdb]    (the store is made where it is missing)
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from benchmarks.scale.dashboard_session import Session
from moescope.cli.show.app import serving
from moescope.store import RunWriter

DOMAINS = ("code", "law", "prose", "mathematics", "german")
LENGTH = 512


def head(layers: int, experts: int, top_k: int) -> dict[str, Any]:
    """The head of the synthetic run."""
    routers = [
        {
            "router": r,
            "name": f"layers.{r}",
            "layer": r,
            "stack": "decoder",
            "block_type": "ffn",
            "kind": "token_choice",
            "experts": experts,
            "top_k": top_k,
        }
        for r in range(layers)
    ]
    members = [{"router": r, "expert": e, "role": "routed"} for r in range(layers) for e in range(experts)]
    run = {"name": "synthetic", "started": "2026-01-01", "dataset": "synthetic"}
    return {
        "run": run,
        "model": {"name": "synthetic", "family": "mixtral", "weights_sha256": "0"},
        "routers": routers,
        "experts": members,
    }


def build(store: Path, decisions: int, layers: int = 16, experts: int = 64, top_k: int = 2) -> None:
    """A store of so many decisions; tokens are Zipf, experts follow token and domain."""
    writer, rng, batch = RunWriter.create(store, head(layers, experts, top_k)), np.random.default_rng(0), 16
    base, topic = rng.normal(0, 1, (layers, 4000, experts)).astype("f4"), rng.normal(0, 1, (5, experts)).astype("f4")
    forwards = max(decisions // (layers * LENGTH * batch), 1)
    vocab = np.arange(4000)
    for number in range(forwards):
        count = LENGTH * batch
        first, token, forward = writer.take("sequence", batch), writer.take("token", count), writer.take("forward", 1)
        domain = (first + np.arange(batch)) % 5
        names = [DOMAINS[d] for d in domain]
        words = np.minimum(rng.zipf(1.3, count), 4000) - 1
        _names(writer, first, token, forward, words, names)
        if number == 0:
            writer.add("vocab", {"vocab_id": vocab, "text": [f"▁word{v}" for v in vocab]})
        for layer in range(layers):
            score = base[layer, words] + topic[domain[np.arange(count) // LENGTH]] + rng.normal(0, 0.5, (count, 1)).astype("f4")
            writer.add(f"routes_{top_k}", _routes(score, forward, layer, token, top_k, rng))
        if number % 8 == 7:
            writer.commit({"batches": number + 1})
    writer.close({"status": "complete"}, {"batches": forwards})


def _names(writer: RunWriter, first: int, token: int, forward: int, words: np.ndarray, names: list[str]) -> None:
    """The sequences (batch,), tokens (count,) and the forward that the decisions of a batch are of."""
    batch, count = len(names), len(words)
    sequence = np.arange(first, first + batch)
    writer.add("sequences", {
        "sequence": sequence, "source": "synthetic", "source_row": sequence, "part": 0, "beam": 0,
        "document": [f"d{s // 4}" for s in sequence], "stack": "decoder", "domain": names, "tokens": LENGTH,
        "text": "synthetic",
    })  # fmt: skip
    writer.add("sequence_labels", {"sequence": sequence, "kind": "domain", "label": names})
    writer.add("tokens", {
        "token": np.arange(token, token + count), "sequence": first + np.arange(count) // LENGTH,
        "position": np.arange(count) % LENGTH, "unit": "text", "vocab_id": words, "special": False, "generated": False,
    })  # fmt: skip
    writer.add(
        "forwards",
        {"forward": [forward], "phase": "prefill", "step": 0, "batch_size": batch, "tokens": count, "seconds": 0.1},
    )


def _routes(score: np.ndarray, forward: int, layer: int, token: int, top_k: int, rng: np.random.Generator) -> dict[str, Any]:
    score = score + rng.normal(0, 0.7, score.shape).astype("f4")
    best = np.argpartition(-score, top_k, axis=1)[:, :top_k]
    weight = np.sort(rng.dirichlet(np.ones(top_k), len(score)).astype("f4"))[:, ::-1]
    noise = rng.random(len(score)).astype("f4")
    columns: dict[str, Any] = {
        "forward": forward,
        "router": layer,
        "iteration": 0,
        "token": np.arange(token, token + len(score)),
        "log_sum_exp": noise + 2,
        "entropy": noise + 1,
        "margin": noise / 4,
        "slots": 0x10,
        "dropped": 0,
    }
    for rank in range(top_k):
        columns |= {f"e{rank}": best[:, rank].astype("int16"), f"w{rank}": weight[:, rank]}
    return columns


@click.command()
@click.option("--decisions", default=20_000_000, show_default=True)
@click.option("--store", type=click.Path(path_type=Path))
@click.option("--repeat", default=3, show_default=True)
def main(decisions: int, store: Path | None, repeat: int) -> None:
    """Print the figures of `repeat` sessions."""
    from playwright.sync_api import sync_playwright

    store = store or Path(tempfile.mkdtemp()) / "big.duckdb"
    if not store.exists():
        build(store, decisions)
    begun = time.perf_counter()
    with serving(store) as site, sync_playwright() as playwright:
        process = psutil.Process(site.pid)
        report = {
            "decisions": decisions,
            "bytes": store.stat().st_size,
            "until it serves, s": round(time.perf_counter() - begun, 2),
        }
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        sessions = [Session(process, site, browser).measure() for _ in range(repeat)]
        report |= {"server MB": round(process.memory_info().rss / 1e6), "load": [round(x, 1) for x in os.getloadavg()[:2]]}
    print(json.dumps(report))
    print("step | seen: first session, s | median, s | all drawn: first session, s | median, s | median CPU of the server, s")
    for step, first in sessions[0].items():
        seen, drawn, cpu = (statistics.median(session[step][i] for session in sessions) for i in range(3))
        print(f"{step} | {first[0]:.2f} | {seen:.2f} | {first[1]:.2f} | {drawn:.2f} | {cpu:.2f}")


if __name__ == "__main__":
    main()
