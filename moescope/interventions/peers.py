"""The same two ablations for users of nnsight and TransformerLens, on models that route as Mixtral does.

That is: softmax over all experts, the k largest, divided by their sum where the model does (`norm_topk_prob`; Mixtral does).
Neither library edits the decision by itself: a TransformerLens hook on the router's logits (`hook_out`) changes nothing at all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Hook = tuple[str, Callable[[Tensor, Any], Tensor]]


def masked_choice(logits: Tensor, experts: Sequence[int], k: int, normalized: bool = True) -> tuple[Tensor, Tensor]:
    """(weights, experts) (T, k) of the k best without `experts`, from (T, E) logits, as Mixtral weighs them."""
    p = torch.softmax(logits.float(), -1)
    left = p.clone()
    left[..., list(experts)] = float("-inf")
    values, best = left.topk(k, -1)
    return (values / values.sum(-1, keepdim=True) if normalized else values).to(logits.dtype), best


def nnsight_zero(layer: Any, experts: Sequence[int]) -> None:
    """Inside `with nnsight_model.trace(...)`: the experts of `layer` (such as `nm.model.layers[3]`) contribute nothing."""
    hidden, index, weights = layer.mlp.experts.inputs[0]
    hit = torch.isin(index, torch.tensor(list(experts), device=index.device))
    layer.mlp.experts.inputs = ((hidden, index, weights.masked_fill(hit, 0.0)), {})


def nnsight_route_around(layer: Any, experts: Sequence[int], k: int, normalized: bool = True) -> None:
    """Inside `with nnsight_model.trace(...)`: the experts of `layer` cannot be chosen, the next best of its router are."""
    logits, *_ = layer.mlp.gate.output
    weights, index = masked_choice(logits, experts, k, normalized)
    layer.mlp.gate.output = (logits, weights, index)


def lens_zero(layer: int, experts: Sequence[int]) -> list[Hook]:
    """Hooks for `bridge.run_with_hooks(ids, fwd_hooks=...)`: the experts of a layer contribute nothing.

    TransformerLens takes the k largest of what the hook leaves: where a weight is gone, some other expert runs with weight 0.
    """

    def zero(weights: Tensor, hook: Any) -> Tensor:
        weights = weights.clone()
        weights[:, list(experts)] = 0
        return weights

    return [(f"blocks.{layer}.mlp.gate.hook_expert_weights", zero)]


def lens_route_around(layer: int, experts: Sequence[int], k: int, normalized: bool = True) -> list[Hook]:
    """Hooks for `bridge.run_with_hooks(ids, fwd_hooks=...)`: the experts of a layer cannot be chosen, the next best are."""
    seen: list[Tensor] = []

    def logits(value: Tensor, hook: Any) -> Tensor:
        seen[:] = [value.detach().reshape(-1, value.shape[-1])]
        return value

    def choose(weights: Tensor, hook: Any) -> Tensor:
        new, index = masked_choice(seen[0], experts, k, normalized)
        return torch.zeros_like(weights).scatter(-1, index, new.to(weights.dtype))

    return [(f"blocks.{layer}.mlp.gate.hook_out", logits), (f"blocks.{layer}.mlp.gate.hook_expert_weights", choose)]
