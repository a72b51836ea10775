"""What an imported run says of itself before its first row, and in which words what it lacks is said."""

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ... import __version__
from .model import Model

WITHOUT = {
    "weights": "the capture has no routing weights, so figures count experts instead of weighing them",
    "ranks": "the order of experts is not known to be that of their weights, so it is kept as `slot`, `rank` is null, and "
    "nothing can be said of first choices",
    "text": "tokens have ids and no text: --tokenizer gives it",
    "ids": "the capture lacks the vocabulary ids of some tokens (often the prompt's), which are null",
    "forwards": "the capture does not say which tokens ran together, so every sequence is told as one prefill and one decode",
    "summaries": "the capture has no router logits, so entropy, margin and log-sum-exp are null",
}
"""By kind, what a capture may lack: a sentence each."""


def head_of(model: Model, ordered: bool, run: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The run, its model, routers and experts, by the columns of the schema."""
    router = {
        "stack": "decoder", "block_type": "ffn", "contract": "imported", "kind": "token_choice", "experts": model.experts,
        "top_k": None if model.varies else model.top_k,
        "shared_experts": model.shared, "score": model.score, "weight_on": "output",
        "decides_on": "token", "extra": {} if ordered else {"ranks": "unknown"},
    }  # fmt: skip
    versions = {"moescope": __version__, "python": platform.python_version(), **run.get("versions", {})}
    own = {
        "started": now(), "versions": versions,
        "host": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip
    served = {
        "name": model.name, "family": model.family, "config": dict(model.config), "weights_sha256": "unknown",
        "code": f"imported from {kind}",
    }  # fmt: skip
    layers = list(enumerate(model.routed))
    return {
        "run": {**run, **own}, "model": served,
        "routers": [{"router": n, "name": f"layers.{layer}", "layer": layer, **router} for n, layer in layers],
        "experts": [{"router": n, "expert": e, "role": "routed"} for n, _ in layers for e in range(model.experts)],
    }  # fmt: skip


def now() -> datetime:
    """UTC, as the store keeps times."""
    return datetime.now(UTC).replace(tzinfo=None)
