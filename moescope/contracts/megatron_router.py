"""Megatron-Core's router: `(probabilities (T, E), map (T, E) of booleans)`, T = S · B rows that are sequence-first.

Row r is token (r mod B, r div B) of the stream, which `Record.rows` says. Where capacity drops tokens the map is what is left;
what was wanted is asked of the router itself, without capacity (NVIDIA/Megatron-LM d98e8a6, in megatron/core/transformer/moe
router.py, `TopKRouter.routing`, and moe_utils.py, `apply_router_token_dropping`). The map has no order: slots go by expert
number. An `InferenceTopKRouter` at work returns `(probabilities (T, k), experts (T, k))`, which is read as that.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..routers.base import Record, Site
from ..routers.reading.ask_again import Drawing, again, settings
from ..routers.rows.held_here import check_held


class MegatronRouter(Drawing):
    """A layer with a router that has `gating`, `routing` and Megatron's settings, and experts that take sorted rows."""

    name = "megatron_router"
    capacity = True
    sums_per_token = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each mixture."""
        router: Any = getattr(module, "router", None)
        config: Any = getattr(router, "config", None)
        if not (hasattr(config, "num_moe_experts") and hasattr(router, "gating") and hasattr(module, "num_local_experts")):
            return
        on = "input" if getattr(config, "moe_apply_probs_on_input", False) else "output"
        site = Site(name, module, router, module.experts, self, config.num_moe_experts, weight_on=on)  # type: ignore[arg-type]
        site.score = getattr(router, "score_function", None)
        site.capacity_factor = getattr(config, "moe_expert_capacity_factor", None)
        site.shared = int(getattr(module, "shared_experts", None) is not None)
        site.rule = _rule(config)
        yield site

    def draws(self, router: Any) -> bool:
        """An input that is jittered, or a load that is forced."""
        config = router.config
        return bool(getattr(config, "moe_input_jitter_eps", None) or getattr(config, "moe_router_force_load_balancing", False))

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(T, k) by expert number; those that were dropped keep theirs."""
        probs, chosen = output
        router: Any = site.router
        hidden = args[0]
        with torch.no_grad():
            logits = router.gating(hidden).reshape(-1, site.n_experts)
        if chosen.dtype is not torch.bool:
            return Record(site, chosen.long(), probs, logits, rows=_rows(hidden))
        if isinstance(output, Written):
            experts, weights = output.decision
            dropped = (experts >= 0) & ~chosen.gather(1, experts.clamp(min=0)) if _drops(router) else None
        else:
            wanted = _wanted(router, args) if _drops(router) else chosen
            experts = _numbers(wanted, router.topk)
            dropped = (experts >= 0) & ~chosen.gather(1, experts.clamp(min=0)) if _drops(router) else None
            weights = probs.gather(1, experts.clamp(min=0)).masked_fill(experts < 0, 0)
        record = Record(site, experts, weights, logits, dropped=dropped, rows=_rows(hidden))
        return _pooled(record, chosen) if _drops(router) else record

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Another map. What was dropped stays dropped unless it is moved or given a weight."""
        probs, chosen = output
        if chosen.dtype is not torch.bool:
            return weights.to(probs.dtype), experts.to(chosen.dtype)
        was = self.read(site, args, output)
        if torch.equal(was.experts, experts) and torch.equal(was.weights, weights):
            return output
        alive = experts >= 0
        if was.dropped is not None:
            alive &= ~(was.dropped & (experts == was.experts) & (weights == 0))
        places = experts.clamp(min=0)
        dense = torch.zeros_like(probs).scatter_add(1, places, weights.masked_fill(~alive, 0).to(probs.dtype))
        made = Written((dense, torch.zeros_like(probs).scatter_add(1, places, alive.to(probs.dtype)) > 0))
        made.decision = experts, weights
        return made

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert's rows with their weights, as the experts are called; shared experts beside."""
        block: Any = site.block
        check_held(site, block.num_local_experts, "trace the model with expert_model_parallel_size=1")
        hidden = inputs[0] if not hasattr(block, "fc1_latent_proj") else block.fc1_latent_proj.forward(inputs[0])[0]
        alive = record.ran
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for number in record.experts[alive].unique().tolist():
            token, slot = ((record.experts == number) & alive).nonzero(as_tuple=True)
            counts = torch.zeros(site.n_experts, dtype=torch.long, device=hidden.device)
            counts[number] = len(token)
            made = block.experts.forward(hidden[token], counts, record.weights[token, slot])
            total.index_add_(0, token, (made[0] if isinstance(made, tuple) else made).float())
        if hasattr(block, "fc2_latent_proj"):
            total = block.fc2_latent_proj.forward(total.to(hidden.dtype))[0].float()
        shared = getattr(block, "shared_experts", None)
        return total if shared is None else total + shared.forward(inputs[0])


class Written(tuple):  # type: ignore[type-arg]
    """What a router returned, with another decision in it: (T, k) experts and weights in the order that they were given."""

    decision: tuple[Tensor, Tensor]


contract = MegatronRouter()


def _rule(config: Any) -> dict[str, Any]:
    groups, scale = getattr(config, "moe_router_num_groups", None), getattr(config, "moe_router_topk_scaling_factor", None)
    softmax = {"softmax": "before top-k" if getattr(config, "moe_router_pre_softmax", False) else "after top-k"}
    policy = getattr(config, "moe_token_drop_policy", None)
    return {
        **({"groups": groups, "groups_kept": config.moe_router_group_topk} if groups else {}),
        **({"scale": {"name": "moe_router_topk_scaling_factor", "value": float(scale), "on": "weights"}} if scale else {}),
        **(softmax if getattr(config, "moe_router_score_function", "softmax") == "softmax" else {}),
        **({"drop_policy": policy} if getattr(config, "moe_expert_capacity_factor", None) is not None else {}),
    }


def _drops(router: Any) -> bool:
    return getattr(router.config, "moe_expert_capacity_factor", None) is not None


def _wanted(router: Any, args: tuple[Any, ...]) -> Tensor:
    """(T, E) the map of a router whose experts have room for all."""
    with again(router, args[0]), settings(router.config, moe_expert_capacity_factor=None):
        return router.forward(*args)[1]  # type: ignore[no-any-return]


def _numbers(chosen: Tensor, k: int) -> Tensor:
    """(T, k or as many as there are) expert numbers of a (T, E) map, ascending, -1 behind them."""
    count = chosen.shape[1]
    numbers = torch.arange(count, device=chosen.device).expand_as(chosen).masked_fill(~chosen, count)
    first = numbers.sort(-1).values[:, : max(k, int(chosen.sum(-1).max()))]
    return first.masked_fill(first == count, -1)


def _rows(hidden: Tensor) -> Tensor | None:
    """(S · B,) places in a stream that is (B, S); None where rows are no two axes."""
    if hidden.dim() != 3:
        return None
    places, batch = hidden.shape[:2]
    order = torch.arange(places * batch, device=hidden.device)
    return order % batch * places + order // batch


def _pooled(record: Record, chosen: Tensor) -> Record:
    """With the pool of all rows, its capacity, and each assignment's place in its expert's buffer."""
    router: Any = record.site.router
    total, count = chosen.shape
    record.pool = torch.zeros(total, dtype=torch.long, device=chosen.device)
    record.pool_tokens = total
    record.capacity = math.ceil(total * router.topk / count * router.config.moe_expert_capacity_factor)
    place = (chosen.cumsum(0) - 1).gather(1, record.experts.clamp(min=0))
    assert record.dropped is not None
    record.buffer = place.masked_fill(record.dropped | (record.experts < 0), 0)
    return record
