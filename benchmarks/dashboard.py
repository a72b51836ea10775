"""How fast the dashboard is on a large store: first page, interactions, memory of the server, in a real browser.

python benchmarks/dashboard.py [--decisions 20000000] [--store big.duckdb]    (the store is made where it is missing)
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

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
            "site": "ffn",
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
        writer.add(
            "sequences",
            {
                "sequence": np.arange(first, first + batch),
                "source": "synthetic",
                "source_row": np.arange(first, first + batch),
                "part": 0,
                "beam": 0,
                "document": [f"d{s // 4}" for s in range(first, first + batch)],
                "stack": "decoder",
                "domain": names,
                "tokens": LENGTH,
                "text": "synthetic",
            },
        )
        writer.add("sequence_labels", {"sequence": np.arange(first, first + batch), "kind": "domain", "label": names})
        writer.add(
            "tokens",
            {
                "token": np.arange(token, token + count),
                "sequence": first + np.arange(count) // LENGTH,
                "position": np.arange(count) % LENGTH,
                "unit": "text",
                "vocab_id": words,
                "special": False,
                "generated": False,
            },
        )
        writer.add(
            "forwards",
            {"forward": [forward], "phase": "prefill", "step": 0, "batch_size": batch, "tokens": count, "seconds": 0.1},
        )
        if number == 0:
            writer.add("vocab", {"vocab_id": vocab, "text": [f"▁word{v}" for v in vocab]})
        for layer in range(layers):
            score = base[layer, words] + topic[domain[np.arange(count) // LENGTH]] + rng.normal(0, 0.5, (count, 1)).astype("f4")
            writer.add(f"routes_{top_k}", _routes(score, forward, layer, token, top_k, rng))
        if number % 8 == 7:
            writer.commit({"batches": number + 1})
    writer.close({"status": "complete"}, {"batches": forwards})


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


def serve(store: Path) -> tuple[psutil.Process, str]:
    """A dashboard over the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-c",
        "from moescope.cli.app import command; command()",
        str(store),
        "--port",
        str(port),
        "--headless",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(200):
        try:
            urllib.request.urlopen(url + "_stcore/health", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    return psutil.Process(process.pid), url


def memory(process: psutil.Process) -> float:
    """Resident megabytes of the server."""
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 1e6


def timed(act: Callable[[], Any], done: Callable[[], Any]) -> float:
    """Seconds from the act until it is done."""
    begun = time.perf_counter()
    act()
    done()
    return time.perf_counter() - begun


def idle(page: Any) -> None:
    """Until the script has run."""
    page.locator('[data-testid=stApp][data-test-script-state="notRunning"]').wait_for(timeout=120_000)


def measure(url: str, browser: Any) -> dict[str, float]:
    """Seconds of every step, in one session; each page is new to this session."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    chart = page.locator("[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas").first
    took = {"first page": timed(lambda: page.goto(url), lambda: chart.wait_for(timeout=120_000))}
    for name, ready in (
        ("Tokens", ".tokens .t"),
        ("Experts", ".ms-context a"),
        ("Load and entropy", "[data-testid=stVegaLiteChart] svg"),
        ("Structure", "[data-testid=stVegaLiteChart] svg"),
        ("SQL", "[data-testid=stDataFrame]"),
    ):
        idle(page)
        heading = page.locator(".ms-head h1", has_text=name)
        took[f"open {name}"] = timed(
            lambda name=name: page.get_by_role("link", name=name, exact=True).click(),
            lambda heading=heading, ready=ready: (
                heading.wait_for(timeout=120_000),
                page.locator(ready).first.wait_for(timeout=120_000),
            ),
        )
    page.goto(url + "tokens")
    page.locator(".tokens .t").nth(400).wait_for(timeout=120_000)
    idle(page)
    for number in (5, 50):
        took[f"click token {number}"] = timed(
            lambda number=number: page.locator(".tokens .t").nth(number).click(),
            lambda number=number: page.locator(f'.ms-run span:has-text("position {number} ")').wait_for(timeout=60_000),
        )
    idle(page)
    for label in ("layer 3", "layer 11"):
        page.get_by_label("Layer", exact=False).first.click()
        took[f"choose {label}"] = timed(
            lambda label=label: page.get_by_role("option", name=label, exact=True).click(),
            lambda label=label: page.locator("[data-testid=stCaptionContainer] strong", has_text=label).first.wait_for(
                timeout=60_000
            ),
        )
        idle(page)
    return took


@click.command()
@click.option("--decisions", default=20_000_000, show_default=True)
@click.option("--store", type=click.Path(path_type=Path))
@click.option("--repeat", default=3, show_default=True)
def main(decisions: int, store: Path | None, repeat: int) -> None:
    """Print the median of `repeat` sessions as JSON."""
    from playwright.sync_api import sync_playwright

    store = store or Path(tempfile.mkdtemp()) / "big.duckdb"
    if not store.exists():
        build(store, decisions)
    process, url = serve(store)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
            sessions = [measure(url, browser) for _ in range(repeat)]
            report = {
                "decisions": decisions,
                "bytes": store.stat().st_size,
                "server MB": round(memory(process)),
                "load": os.getloadavg()[0],
            }
            report["first session, s"] = {k: round(v, 2) for k, v in sessions[0].items()}
            report["median, s"] = {k: round(statistics.median(s[k] for s in sessions), 2) for k in sessions[0]}
            print(json.dumps(report, indent=1))
    finally:
        os.killpg(process.pid, 15)


if __name__ == "__main__":
    main()
