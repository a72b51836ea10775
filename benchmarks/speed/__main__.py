"""`make bench`: every performance figure in one table, and in benchmarks/speed/results.json; `--decisions` sets the size."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import device
from benchmarks.speed.finishing import marks
from benchmarks.speed.ingest import CAPTURES, SHAPES, ingest
from benchmarks.speed.overhead import SIZES, decode, prefill
from benchmarks.speed.queries import ask, build

TIME = "CPU time" if device() == "cpu" else "wall time on the GPU"
RESULTS = Path(__file__).with_name("results.json")


def overhead(rounds: int) -> list[dict[str, Any]]:
    """Traced over plain forward; `make bench-peers` has what others cost."""
    rows = []
    for size in SIZES:
        many = rounds if "108" in size else 2 * rounds
        found = {"prefill 8 × 256": prefill(size, many, peers=False), "64 decode steps of 8": decode(size, many // 2)}
        for what, ratios in found.items():
            for name, (median, low, high) in ratios.summary().items():
                if name not in ("plain", "output_router_logits"):
                    rows.append(row(f"{TIME} ÷ plain, {size}, {what}: {name}", median, (low, high), "×"))
    return rows


def ingestion(decisions: int) -> list[dict[str, Any]]:
    """Durable decisions per CPU-second, bytes, memory."""
    rows, loading = [], 0.0
    for shape in SHAPES:
        few = decisions if "top-2" in shape else decisions // 4
        for dtype in (torch.float32, torch.bfloat16):
            for what, capture in CAPTURES.items():
                found = ingest(shape, dtype, few, **capture)
                label = f"{shape}, {str(dtype).removeprefix('torch.')}, {what}"
                fast = sorted(found["million_per_cpu_second"])
                rows += [
                    row(f"decisions durable per CPU-second, {label}", statistics.median(fast), (fast[0], fast[-1]), "M"),
                    row(f"the same, joined to one file, {label}", found["million_per_cpu_second_with_join"], None, "M"),
                    row(f"bytes per decision while tracing (shards), {label}", found["shard_bytes"], None, "B"),
                    row(f"bytes per decision of the finished file, {label}", found["file_bytes"], None, "B"),
                ]
                loading = max(loading, found["loading"])
    return [*rows, row("loading compiled loops, once per process", loading, None, "s")]


def questions(decisions: int) -> list[dict[str, Any]]:
    """Wall seconds of everyday questions."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.duckdb"
        build(store, decisions)
        return [
            row(f"{name}, {decisions / 1e6:g} M decisions", median, (median, most), "s")
            for name, (median, most) in ask(store).items()
        ]


def finishing(decisions: int) -> list[dict[str, Any]]:
    """CPU seconds until a run is finished over those until it is durable, twice each; what adding a run costs by size."""
    rows = []
    for name, found in marks(2 * decisions, [1, 10, 50]).items():
        values = sorted(one["ratio cpu"] if isinstance(one, dict) else one[1] for one in found)
        unit = "×" if isinstance(found[0], dict) else "s"
        rows.append(row(f"{name} (CPU)", statistics.median(values), (values[0], values[-1]), unit))
        if unit == "×":
            rows.append(row(f"{name}: memory of the process", max(one["memory"] for one in found), None, "GB"))
    return rows


def starting() -> list[dict[str, Any]]:
    """Wall seconds of `moescope --help`."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "moescope.cli", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return [row("moescope --help", sorted(times)[2], (min(times), max(times)), "s")]


def row(mark: str, value: float, spread: tuple[float, float] | None, unit: str) -> dict[str, Any]:
    """One line of the table, printed as it comes."""
    shown = f"{value:8.3f} {unit}" + (f"   [{spread[0]:.3f} … {spread[1]:.3f}]" if spread else "")
    print(f"{mark:90} {shown}", flush=True)
    return {"mark": mark, "value": value, "spread": spread, "unit": unit}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--decisions", type=int, default=8_000_000)
    parser.add_argument("--only", choices=["overhead", "ingestion", "questions", "finishing", "starting"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    parts = {
        "starting": starting,
        "overhead": lambda: overhead(chosen.rounds),
        "ingestion": lambda: ingestion(chosen.decisions),
        "questions": lambda: questions(chosen.decisions),
        "finishing": lambda: finishing(chosen.decisions),
    }
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, GPU: {torch.cuda.is_available()}"
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() and chosen.only else {"parts": {}}
    found |= {
        "machine": machine,
        "versions": {n: version(n) for n in ("moescope", "torch", "transformers", "duckdb", "pyarrow")},
    }
    for name, part in parts.items():
        if chosen.only in (None, name):
            rows = part()
            found["parts"][name] = {"date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0], "marks": rows}
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
