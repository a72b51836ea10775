"""How another program comes from a router's logits to experts and weights, and the same again in float64: do they agree?

The forms are those of `llm_graph_context::build_moe_ffn` (llama.cpp, src/llama-graph.cpp) and of vLLM's routers
(model_executor/layers/fused_moe/router).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_LEAST = 6.103515625e-5  # what the sum of weights is never below when they are divided by it
NEAR = 5e-5  # relative: float32 and the order of sums


@dataclass(frozen=True)
class Rule:
    """`score`: softmax, sigmoid or sqrtsoftplus of the logits; `normalized`: weights divided by their sum; `scale`: what they
    are multiplied by; `bias` (E,): added to scores where experts are chosen, not where they are weighed; `groups`: experts
    are chosen in the best `groups_kept` of them, by the sum of each group's `groups_by` largest."""

    score: str
    normalized: bool
    scale: float = 1.0
    bias: Array | None = None
    groups: int = 1
    groups_kept: int = 1
    groups_by: int = 2

    def weights(self, logits: Array, experts: Array) -> Array:
        """(T, k) float64 weights of experts (T, k) from logits (T, E)."""
        found = np.take_along_axis(_scores(logits, self.score), experts, -1)
        if self.normalized:
            found = found / np.maximum(found.sum(-1, keepdims=True), _LEAST if self.score != "softmax" else 0)
        return np.asarray(found * self.scale)

    def choosing(self, logits: Array) -> Array:
        """(T, E) what experts are chosen by; -inf in groups that are left out."""
        values = _scores(logits, self.score)
        values = values if self.bias is None else values + self.bias
        if self.groups < 2:
            return values
        grouped = values.reshape(len(values), self.groups, -1)
        best = np.sort(grouped, -1)[..., -self.groups_by :].sum(-1)
        least = np.sort(best, -1)[:, -self.groups_kept]
        return np.asarray(np.where((best >= least[:, None])[..., None], grouped, -np.inf).reshape(values.shape))

    def __str__(self) -> str:
        """As in "sigmoid, bias, 2 of 4 groups, divided by their sum, times 2.5"."""
        parts = [self.score, "bias" if self.bias is not None else ""]
        parts += [f"{self.groups_kept} of {self.groups} groups" if self.groups > 1 else ""]
        parts += ["divided by their sum" if self.normalized else "", f"times {self.scale:g}" if self.scale != 1 else ""]
        return ", ".join(part for part in parts if part)

    def said(self) -> dict[str, Any]:
        """As `routers.extra` of the store has it."""
        found: dict[str, Any] = {}
        if self.groups > 1:
            found |= {"groups": self.groups, "groups_kept": self.groups_kept}
        if self.bias is not None:
            found["bias"] = {"name": "exp_probs_b", "values": [round(float(v), 6) for v in self.bias]}
        if self.scale != 1:
            found["scale"] = {"name": "expert_weights_scale", "value": self.scale, "on": "weights"}
        return found


def _scores(logits: Array, score: str) -> Array:
    logits = logits.astype(np.float64)
    if score == "softmax":
        raised = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(raised / raised.sum(-1, keepdims=True))
    if score == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)))
    return np.asarray(np.sqrt(np.logaddexp(0, logits)))


def disagreement(rule: Rule, logits: Array, experts: Array, weights: Array, near: float = NEAR) -> str | None:
    """What does not follow from the logits (T, E) of what ran (T, k), in words; None where all of it does, as far as `near`
    (relative) tells."""
    if not np.isfinite(logits).all():
        return "its logits are not finite"
    count = logits.shape[-1]
    if experts.min() < 0 or experts.max() >= count:
        return f"expert {int(experts.max())} ran, and there are {count}"
    ordered = np.sort(experts, -1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return "an expert ran twice for one token"
    by = rule.choosing(logits)
    left = by.copy()
    np.put_along_axis(left, experts, -np.inf, -1)
    chosen, best = np.take_along_axis(by, experts, -1).min(-1), left.max(-1)
    if (chosen < best - near * (1 + np.abs(best, where=np.isfinite(best), out=np.zeros_like(best)))).any():
        return "other experts ran than the largest scores of its logits"
    ours = rule.weights(logits, experts)
    off = float(np.abs(ours - weights).max())
    if not off <= near * max(1.0, float(np.abs(ours).max())):
        return f"its weights are up to {off:.1e} off from those that follow from its logits"
    return None
