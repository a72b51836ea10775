"""How far the proof's recomputed output is from the real one, by quantization and type: python -m benchmarks.quantized

Every `--quantize` that runs here, on shipped models and tiny random ones: the largest difference of all routers, as a share of
the largest value, and what share that is of what the proof allows. Prints the table of docs/quantized.md.
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from moescope.contracts import find
from moescope.errors import MoescopeError
from moescope.models import tiny
from moescope.models.loading import load
from moescope.models.quantized.ways import WAYS
from moescope.proof import Proved, example_inputs, prove

SHIPPED = ("mixtral", "switch")
FAMILIES = (
    "mixtral",
    "qwen3_moe",
    "olmoe",
    "deepseek_v3",
    "phimoe",
    "gpt_oss",
    "granitemoe",
    "glm4_moe",
    "nllb-moe",
    "llama4_text",
)
TYPES = ("float32", "float16", "bfloat16")


def proof_of(name: str, inputs: dict[str, Any] | None, **how: Any) -> list[Proved]:
    """The proof of a model that is loaded like that; empty where it cannot be loaded or run so."""
    try:
        model = load(name, **how).model
        kind = getattr(torch, how["dtype"])
        given = {n: v.to(kind) if torch.is_tensor(v) and v.is_floating_point() else v for n, v in (inputs or {}).items()}
        return prove(model, find(model), given or example_inputs(model))
    except MoescopeError:
        return []


def cells(way: str | None, kept: dict[str, dict[str, Any]]) -> tuple[str, int, float]:
    """(a row's cells, models that ran, the largest share of its tolerance that a difference takes)."""
    found, ran, worst = [], set(), 0.0
    for kind in TYPES:
        rows = {name: proof_of(name, inputs, quantize=way, dtype=kind, device="cpu") for name, inputs in kept.items()}
        errors = [row for proof in rows.values() for row in proof]
        ran |= {name for name, proof in rows.items() if proof}
        worst = max([worst, *(row.error / (row.tolerance or 1) for row in errors)])
        found.append(f"{max(row.error for row in errors):.1e}")
    return " | ".join(found), len(ran), worst


def main() -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        kept: dict[str, dict[str, Any]] = {name: {} for name in SHIPPED}
        for family in FAMILIES:
            built = tiny.build(family)
            built.model.save_pretrained(Path(folder) / family)
            kept[str(Path(folder) / family)] = dict(built.inputs)
        print(f"| `--quantize` | models | {' | '.join(TYPES)} | of the tolerance, at most |\n|---|---|---|---|---|---|")
        for way in [None, *WAYS]:
            if way is None or not WAYS[way].lacks(torch.device("cpu")):
                row, ran, worst = cells(way, kept)
                print(f"| {way or 'none'} | {ran} of {len(kept)} | {row} | {worst:.0%} |")


if __name__ == "__main__":
    main()
