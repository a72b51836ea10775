"""A store made by hand: two routers of three experts, two sequences of two tokens, four routed decisions in two batches."""

from pathlib import Path
from typing import Any

import numpy as np

from moescope.store import RunWriter

HEAD: dict[str, Any] = {
    "run": {"started": "2026-01-02 03:04:05", "name": "by hand", "dataset": "letters", "seed": 7, "key": "plan"},
    "model": {"name": "toy", "family": "mixtral", "weights_sha256": "abc", "dtype": "float32"},
    "routers": [
        {"router": r, "name": f"layers.{layer}.gate", "layer": layer, "stack": "decoder", "block_type": "ffn",
         "contract": "triple", "kind": "token_choice", "experts": 3, "top_k": 2, "score": "softmax", "extra": {}}
        for r, layer in ((0, 1), (1, 4))
    ],
    "experts": [{"router": r, "expert": e, "role": "routed"} for r in (0, 1) for e in range(3)],
}  # fmt: skip
FINAL = {"status": "complete", "finished": "2026-01-02 03:05:05", "warnings": [], "seconds": 1.0}
U8: Any = np.uint8
U32: Any = np.uint32
F32: Any = np.float32


def batch(writer: RunWriter, number: int) -> None:
    """One forward with one sequence of two tokens, through both routers; the second batch drops one assignment.

    First choices: batch 0 runs experts 0+1 and 1+0 in router 0, 2+0 and 2+1 in router 1; batch 1 the same but for its first
    token in router 0, whose second choice (1) is dropped.
    """
    forward, sequence, token = writer.take("forward", 1), writer.take("sequence", 1), writer.take("token", 2)
    label = ("prose", "code")[number % 2]
    writer.add("sequences", {"sequence": [sequence], "source": "letters", "source_row": [number], "part": 0, "beam": 0,
        "document": [f"d{number}"], "stack": "decoder", "domain": [label], "class": [None], "text": ["ab"],
        "tokens": [2]})  # fmt: skip
    writer.add("sequence_labels", {"sequence": [sequence], "kind": "domain", "label": label})
    tokens = np.arange(token, token + 2)
    writer.add("tokens", {"token": tokens, "sequence": sequence, "position": np.arange(2), "unit": "text",
        "vocab_id": np.array([5, 6]), "special": False, "generated": False})  # fmt: skip
    writer.add("token_labels", {"token": tokens[:1], "kind": "upos", "label": "NOUN"})
    writer.add("vocab", {"vocab_id": [5, 6], "text": ["a", "b"]})
    writer.add("forwards", {"forward": forward, "phase": "prefill", "step": 0, "batch_size": 1, "tokens": 2, "seconds": 0.5})
    writer.add("routes_2", {
        "forward": U32(forward), "router": U32([0, 0, 1, 1]), "iteration": U8(0), "token": U32([token, token + 1] * 2),
        "slots": np.uint64(0x10), "dropped": U32([2 * (number % 2), 0, 0, 0]),
        "log_sum_exp": F32([1, 2, 3, 4]), "entropy": F32([0.5, 0.75, 1, 1]), "margin": F32([0.25, 0.5, 0.5, 0.25]),
        "e0": U8([0, 1, 2, 2]), "w0": F32([0.75, 0.5, 0.625, 0.875]),
        "e1": U8([1, 0, 0, 1]), "w1": F32([0.25, 0.5, 0.375, 0.125]),
    })  # fmt: skip


def written(store: Path, batches: int = 2, close: bool = True, **run: Any) -> RunWriter:
    """A run of some batches in `store`, a shard for each."""
    writer = RunWriter.create(store, {**HEAD, "run": {**HEAD["run"], **run}})
    for number in range(batches):
        batch(writer, number)
        writer.commit({"batches": number + 1, "sequences": number + 1, "total": batches})
    if close:
        writer.close(FINAL, {"batches": batches, "sequences": batches, "total": batches})
    return writer
