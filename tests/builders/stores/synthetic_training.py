"""A training run that collapses, with a planted load: at its end half of the experts, and more, have no token."""

from pathlib import Path
from typing import Any

import numpy as np
import synthetic_app
from synthetic_scene import Scene, head

from moescope.store import RunWriter

WORDS = synthetic_app.SENTENCES["prose"].split() * 3
EXPERTS, LAYERS = 8, 3


def trained(store: Path, steps: int = 40, collapses: bool = True, measured_only: bool = False) -> np.ndarray:
    """One forward a step, with its measures. Gives what every expert ran: (steps, layers, experts), of steps 1, 2, ..."""
    writer = RunWriter.create(store, head("training", {"decoder": LAYERS}, EXPERTS, 2, "mixtral", dataset="text"))
    scene, known, loads = Scene(1, EXPERTS, LAYERS, 2), sorted(set(WORDS)), np.zeros((steps, LAYERS, EXPERTS), int)
    for step in range(1, steps + 1):
        about = {"source": "t", "source_row": step, "document": f"d{step % 6}", "stack": "decoder", "domain": "prose"}
        tokens = synthetic_app.add_sequence(writer, WORDS, known, 0, **about)
        scene.bias = np.zeros((LAYERS, EXPERTS))
        for layer in range(LAYERS) if collapses else ():
            scene.bias[layer, : 3 + layer] = 36 * max(step / steps - 1 / 3, 0)
        loads[step - 1] = _step(writer, scene, tokens, step, measured_only)
    writer.close({"status": "complete"}, {})
    return loads


def _step(writer: RunWriter, scene: Scene, tokens: dict[str, Any], step: int, measured_only: bool) -> np.ndarray:
    forward, loads = writer.take("forward", 1), np.zeros((LAYERS, EXPERTS), int)
    about = {
        "forward": [forward],
        "phase": "train",
        "step": step,
        "batch_size": 1,
        "tokens": len(WORDS),
        "loss": [4 - step / 20],
    }
    writer.add("forwards", about)
    for layer in range(LAYERS):
        routes = scene.routes(scene.logits(layer, tokens["topic"], tokens["kind"], tokens["word"]))
        key = {"forward": forward, "router": layer, "iteration": 0, "token": tokens["token"]}
        if not measured_only:
            writer.add("routes_2", key | routes)
        loads[layer] = np.bincount(np.concatenate([routes["e0"], routes["e1"]]), minlength=EXPERTS)
        share = loads[layer][loads[layer] > 0] / loads[layer].sum()
        measures = {
            "load_entropy": -(share * np.log(share)).sum() / np.log(EXPERTS), "dead": (loads[layer] == 0).sum(),
            "max_violation": loads[layer].max() / loads[layer].sum() * EXPERTS - 1, "dropped_share": 0.0,
        }  # fmt: skip
        row = {"router": layer, "layer": layer, "n": len(WORDS), "subset": f"step {step}"}
        writer.add("measures", {"name": list(measures), "value": [float(v) for v in measures.values()], **row})
    return loads
