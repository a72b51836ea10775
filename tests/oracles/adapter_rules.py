"""The rules of the adapter mixtures in plain torch, from what a projection took: each gives (experts, weights) of its rows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Decided = tuple[Tensor, Tensor]
Rule = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Decided]
"""(model, block, what the block took, the model's inputs)"""


def _all(weights: Tensor) -> Decided:
    return torch.arange(weights.shape[-1]).expand_as(weights), weights


def _top(weights: Tensor, k: int) -> Decided:
    order = weights.argsort(-1, descending=True)[..., :k]
    kept = weights.gather(-1, order)
    return order, kept / kept.sum(-1, keepdim=True)


def lora_moe(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    x = took[0].flatten(0, 1)
    return _all((x @ block.lora_route.weight.T).softmax(-1))


def moe_lora_tokens(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    return _top((took[0].flatten(0, 1) @ block.gate.weight.T).softmax(-1), 2)


def moe_lora_tasks(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    task = block.lora_task_embedding.weight[inputs["task_ids"]]
    return _all((task @ block.lora_gate.weight.T).softmax(-1))


def mov(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    x = took[0].flatten(0, 1)
    x = x if block.inner else x @ block.base_layer.weight.T
    return _all((x @ block.router.weight.T + block.router.bias).softmax(-1))


def mole(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    hidden, allowed = took
    rows = []
    for b in range(len(hidden)):
        real = inputs["attention_mask"][b].bool()
        made = [a(hidden[b : b + 1], allowed[b : b + 1])[0] for a in block.adapters]
        made = [(m - m.mean(-1, keepdim=True)) / (m.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() for m in made]
        size = (len(made) * made[0].numel()) ** 0.5
        places = len(real)
        rows.append([
            sum(float((m[real] * block.gate[j, i, :places][real]).sum()) for i, m in enumerate(made)) / size
            for j in range(len(made))
        ])  # fmt: skip
    weights = (torch.tensor(rows) / block.temperature).softmax(-1)
    for lora in block.masked:
        weights[:, lora] = 0
    weights = weights / weights.sum(-1, keepdim=True)
    return _all(weights)[0].masked_fill(weights == 0, -1), weights


def mocle(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    rows = []
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool()):
        mean = model.embed.weight[ids[mask]].mean(0)
        cluster = int(((model.centres - mean) ** 2).sum(-1).argmin())
        share = (block.gate.weight @ block.cluster_embedding.weight[cluster] / block.temperature).softmax(-1)
        rows.append((int(share.argmax()), float(share.max())))
    universal = len(block.adapters) - 1
    return torch.tensor([[e, universal] for e, _ in rows]), torch.tensor([[w, 1 - w] for _, w in rows])


def omni_smola(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    x = took[0][soft_tokens(block, inputs)]
    turned = x / x.norm(dim=-1, keepdim=True) @ (block.phi / block.phi.norm(dim=0)) * block.scale
    return _all(turned.softmax(-1))


def soft_tokens(block: Any, inputs: dict[str, Any]) -> Tensor:
    """(B, S) bool: the tokens that a soft mixture is for."""
    image, real = inputs["input_ids"] < 200, inputs["attention_mask"].bool()
    return real & {"text": ~image, "image": image, "both": image | ~image}[block.which]


def adamix(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    count = len(block.adapters)
    return _all(torch.full((1, count), 1 / count))


def xlora(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    layer = block.forward.__self__
    given = model.base_model.internal_xlora_scalings[:, :, layer.layer_number].flatten(0, 1)
    k = layer.config.top_k_lora
    if k is None:
        return _all(given)
    order = given.argsort(-1, descending=True)[:, :k]
    kept = given.gather(-1, order)
    return order, kept.softmax(-1) if layer.config.enable_softmax_topk else kept


def arrow(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    near = (took[0].flatten(0, 1) @ block.prototypes.T).abs()
    order = near.argsort(-1, descending=True)[:, : block.top_k]
    return order, (near.gather(-1, order) / block.temperature).softmax(-1)


def poly(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    router = block.poly_router["default"]
    score = router.module_logits[inputs["task_ids"]].sigmoid().view(-1, router.n_splits, router.n_skills)
    return _all((score / score.sum(-1, keepdim=True)).flatten(1))


def lily(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    low = took[0].flatten(0, 1) @ block.lily_A["default"].weight.T
    return _all((low @ block.lily_router["default"].weight.T).softmax(-1).mean(0, keepdim=True))


def mixlora(model: Any, block: Any, took: tuple[Any, ...], inputs: dict[str, Any]) -> Decided:
    gate = block.mixlora_moes["default"].gate_
    return _top((took[0].flatten(0, 1) @ gate.T).softmax(-1), 2)
