"""Synthetic routing that depends on topic, word class and the word itself; and the head of a synthetic run."""

from typing import Any

import numpy as np


class Scene:
    """Routing that depends on topic, word class and the word itself."""

    def __init__(self, seed: int, experts: int, layers: int, top_k: int, dead: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.experts, self.layers, self.top_k, self.dead = experts, layers, top_k, dead
        self.bias = self.rng.normal(0, 0.4, (layers, experts))
        self.topic = self.rng.normal(0, 1, (16, experts))
        self.kind = self.rng.normal(0, 1, (32, experts))
        self.word = self.rng.normal(0, 1, (4096, experts))

    def logits(self, layer: int, topic: np.ndarray, kind: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Router logits (tokens, experts): word and class early, topic late."""
        late = layer / max(self.layers - 1, 1)
        mean = self.bias[layer] + 1.8 * late * self.topic[topic] + 1.6 * (1 - late) * self.kind[kind] + 0.8 * self.word[word]
        noisy = mean + self.rng.normal(0, 0.6, mean.shape)
        if self.dead and layer == self.layers - 1:
            noisy[:, -1] = -20
        return noisy

    def routes(self, logits: np.ndarray, drop: float = 0.0) -> dict[str, Any]:
        """Columns of routes_<k> for these logits."""
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        order = np.argsort(-p, axis=1)
        top = np.take_along_axis(p, order, 1)
        dropped = (self.rng.random(len(p)) < drop).astype("uint32")
        columns: dict[str, Any] = {
            "log_sum_exp": np.log(np.exp(logits).sum(1)).astype("f4"),
            "entropy": (-(p * np.log(p)).sum(1)).astype("f4"),
            "margin": (top[:, self.top_k - 1] - top[:, self.top_k]).astype("f4"),
            "slots": 0x3210,
            "dropped": dropped,
        }
        for rank in range(self.top_k):
            columns |= {
                f"e{rank}": order[:, rank].astype("int16"),
                f"w{rank}": (top[:, rank] / top[:, : self.top_k].sum(1)).astype("f4"),
            }
        return columns


def head(name: str, stacks: dict[str, int], experts: int, top_k: int, family: str, **run: Any) -> dict[str, Any]:
    """The head of a run: `stacks` says how many routed layers each has."""
    places = [(stack, 2 * i + 1 if family == "vit_moe" else i) for stack, n in stacks.items() for i in range(n)]
    routers = [
        {
            "router": r,
            "name": f"{stack}.layers.{layer}.mlp.gate",
            "layer": layer,
            "stack": stack,
            "block_type": "ffn",
            "contract": "triple",
            "kind": "token_choice",
            "experts": experts,
            "top_k": top_k,
            "score": "softmax",
            "capacity_factor": run.get("capacity"),
        }
        for r, (stack, layer) in enumerate(places)
    ]
    run.pop("capacity", None)
    about = {
        "name": name,
        "started": "2026-01-01 10:00:00",
        "device": "cpu",
        "dtype": "float32",
        "seed": 0,
        "command": ["moescope", "trace", name, "--data", str(run.get("dataset", "text"))],
        "proof": [{"router": r["name"], "rows": 16, "error": 1e-7, "identical": True, "note": ""} for r in routers],
        "warnings": [],
        **run,
    }
    model = {"name": name, "family": family, "weights_sha256": "0" * 64, "dtype": "float32", "parameters": 6_400_000}
    members = [{"router": r, "expert": e, "role": "routed"} for r in range(len(routers)) for e in range(experts)]
    return {"run": about, "model": model, "routers": routers, "experts": members}
