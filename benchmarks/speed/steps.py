"""Where the time of a decision goes: each step of the way to a shard by itself, one thread, the best of several rounds.

    python -m benchmarks.speed.steps

The sum is what the way costs where nothing else disturbs the caches; `make bench` measures the whole, model beside it.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.speed.ingest import SHAPES
from moescope import decisions
from moescope.routers.scores import summarize
from moescope.store.physical.column_buffer import ColumnBuffer
from moescope.store.physical.lossless_encoding import pack
from moescope.store.sums.from_shard import Tally
from moescope.store.write.writer import write_rows

TOKENS, PIECES = 4096, 16


def steps(shape: str, dtype: torch.dtype) -> dict[str, float]:
    """{step: nanoseconds per decision}, and the bytes of the shard."""
    layers, experts, k = SHAPES[shape]
    logits = (torch.randn(layers, TOKENS, experts, generator=torch.Generator().manual_seed(0)) * 1.5).to(dtype)
    top = torch.softmax(logits.float(), -1).topk(k, -1)
    weights = (top.values / top.values.sum(-1, keepdim=True)).to(dtype)
    rows = layers * TOKENS
    found = {"entropy": best(lambda: [summarize(x, e, "softmax", ["entropy"]) for x, e in zip(logits, top.indices)]) / rows}
    arrays = {"experts": top.indices.to(torch.int16).numpy(), "weights": weights.float().numpy()}
    arrays["entropy"] = summarize(logits, top.indices, "softmax", ["entropy"])["entropy"].numpy()
    if dtype == torch.bfloat16:
        arrays["entropy"] = np.rint(arrays["entropy"] * 1024) / np.float32(1024)

    def columns(forward: int) -> dict[str, Any]:
        keys = np.broadcast_to(np.arange(forward * TOKENS, (forward + 1) * TOKENS), (layers, TOKENS))
        return decisions.columns_fixed_k(arrays, keys, np.arange(layers), np.zeros(layers, int), np.full(layers, forward))

    found["columns"] = best(lambda: columns(3)) / rows
    pieces, sheet = [columns(forward) for forward in range(PIECES)], ColumnBuffer()

    def gather() -> None:
        sheet.cut(0)
        for some in pieces:
            sheet.add(some)

    rows *= PIECES
    found["putting together"] = best(gather) / rows
    table = sheet.table()
    tokens = {"token": np.arange(PIECES * TOKENS), "sequence": np.arange(PIECES * TOKENS) // 512}
    tables = {f"routes_{k}": table, "tokens": pa.table(tokens)}
    tally = Tally([{"router": r, "layer": r} for r in range(layers)], [{"expert": e} for e in range(experts)])
    found["kept sums"] = best(lambda: tally.of(tables)) / rows
    found["packing"] = best(lambda: pack(table)) / rows
    packed = pack(table)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"routes_{k}.parquet"
        found["Parquet"] = best(lambda: write_rows(path, packed)) / rows
        found = {name: 1e9 * seconds for name, seconds in found.items()}
        return found | {"all": sum(found.values()), "bytes": path.stat().st_size / rows}


def best(call: Callable[[], object], rounds: int = 9) -> float:
    """Seconds of this thread's CPU, the least of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
    return min(times)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in SHAPES:
        for kind in (torch.float32, torch.bfloat16):
            print(name, kind, {step: round(value, 1) for step, value in steps(name, kind).items()})
