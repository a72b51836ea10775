"""How many decisions a CPU-second makes durable, in how many bytes, with how much memory. Real tracer, made-up routers."""

import tempfile
from pathlib import Path
from typing import Any

import torch

import moescope
from benchmarks.measure import device, resident, spent
from benchmarks.synthetic import RoutingOnly

TOKENS = 4096
SHAPES = {"top-2 of 8": (8, 8, 2), "top-8 of 64": (16, 64, 8)}


def ingest(shape: str, dtype: torch.dtype, decisions: int, rounds: int = 5, **capture: Any) -> dict[str, Any]:
    """Trace about `decisions` decisions some times: what a CPU-second makes durable; of the last, joined to a file, sizes.

    Before that a few are traced and thrown away: loading compiled loops is once per process (`loading` seconds)."""
    layers, experts, top_k = SHAPES[shape]
    model = RoutingOnly(layers, experts, top_k, TOKENS, dtype).eval()
    forwards = max(2, decisions // (layers * TOKENS))
    made = forwards * layers * TOKENS
    with torch.no_grad():
        first, second = (_once(model, 2, **capture)["seconds"] for _ in range(2))
        found = [_once(model, forwards, joined=number == rounds - 1, **capture) for number in range(rounds)]
    last = found[-1]
    memory = [one["memory_growth"] for one in found]
    return {
        "decisions": made,
        "million_per_cpu_second": [made / one["seconds"] / 1e6 for one in found],
        "million_per_cpu_second_with_join": made / (last["seconds"] + last["join"]) / 1e6,
        "shard_bytes": last["shard_bytes"] / made,
        "file_bytes": last["file_bytes"] / made,
        "memory_growth": max(memory),
        "loading": first - second,
    }


def _once(model: RoutingOnly, forwards: int, joined: bool = False, **capture: Any) -> dict[str, float]:
    """CPU seconds beyond the model's own until all is durable, and then until it is joined; bytes."""
    ids = torch.arange(TOKENS, device=device()).remainder(1000).view(8, -1)
    with spent() as plain:
        for _ in range(forwards):
            model(ids)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.duckdb"
        memory = []
        with spent() as all_of_it, moescope.Tracer(model, store, **capture) as tracer:
            with spent() as traced:
                for _ in range(forwards):
                    model(ids)
                    memory.append(resident())
                tracer.flush()
                tracer._sink.finish()
                tracer._writer.commit({})
            shards = sum(f.stat().st_size for f in Path(f"{store}.parts").rglob("*.parquet"))
            tracer._sink.finish = lambda: None  # type: ignore[method-assign]
            if not joined:
                tracer._writer.close = lambda *_: 0  # type: ignore[method-assign]
        half = memory[len(memory) // 2 :]
        return {
            "seconds": traced.cpu - plain.cpu,
            "join": all_of_it.cpu - traced.cpu,
            "shard_bytes": shards,
            "file_bytes": store.stat().st_size,
            "memory_growth": (max(half) - half[0]) / half[0],
        }


CAPTURES: dict[str, dict[str, Any]] = {
    "weights and entropy": {"summaries": ["entropy"]},
    "weights, entropy, log-sum-exp, margin": {},
    "experts only": {"weights": False, "summaries": False},
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            for what, capture in CAPTURES.items():
                print(shape, dtype, what)
                print("   ", ingest(shape, dtype, 8_000_000, **capture))
