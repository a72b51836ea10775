"""How many decisions a CPU-second makes durable, in how many bytes, with how much memory. Real tracer, made-up routers."""

import tempfile
from pathlib import Path
from typing import Any

import torch

import moescope
from benchmarks.measure import device, resident, spent
from benchmarks.overhead import drained
from benchmarks.synthetic import RoutingOnly

SHAPES = {"top-2 of 8": (8, 8, 2), "top-8 of 64": (16, 64, 8)}


def ingest(shape: str, dtype: torch.dtype, decisions: int, in_turn: bool = False, **capture: Any) -> dict[str, float]:
    """Trace about `decisions` decisions; figures of the shards, of the finished file, and of memory."""
    layers, experts, top_k = SHAPES[shape]
    tokens = 4096
    model = RoutingOnly(layers, experts, top_k, tokens, dtype).eval()
    ids = torch.arange(tokens, device=device()).remainder(1000).view(8, -1)
    forwards = max(2, decisions // (layers * tokens))
    with torch.no_grad(), spent() as plain:
        for _ in range(forwards):
            model(ids)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.duckdb"
        memory = []
        with torch.no_grad(), spent() as all_of_it, moescope.Tracer(model, store, **capture) as tracer:
            with spent() as traced:
                for _ in range(forwards):
                    model(ids)
                    if in_turn:
                        drained(tracer)
                    memory.append(resident())
                tracer.flush()
                tracer._sink.finish()
                tracer._writer.commit({})
            shards = sum(f.stat().st_size for f in Path(f"{store}.parts").rglob("*.parquet"))
            tracer._sink.finish = lambda: None  # type: ignore[method-assign]
        size = store.stat().st_size
    made = forwards * layers * tokens
    half = memory[len(memory) // 2 :]
    return {
        "decisions": made,
        "million_per_cpu_second": made / (traced.cpu - plain.cpu) / 1e6,
        "million_per_cpu_second_with_join": made / (all_of_it.cpu - plain.cpu) / 1e6,
        "shard_bytes": shards / made,
        "file_bytes": size / made,
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
                print("   ", {k: round(v, 3) for k, v in ingest(shape, dtype, 8_000_000, **capture).items()})
