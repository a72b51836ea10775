"""What a router's modules say of themselves: shared experts, groups, correction bias, scale. For the record of a run."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..weights import dense, fetched
from .base import Site
from .calls import bare

_SHARED = re.compile(r"shared_(experts?|mlp)")
_COUNTS = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
_SCALE = re.compile(r"(routed_|router_)?scaling_factor|route_scale")
_BIAS = re.compile(r"e_score_correction_bias|expert_bias|balancing_biases")


def describe(model: nn.Module, site: Site) -> None:
    """How many experts are shared; in `site.rule` groups, groups_kept, bias ({name, values}), scale ({name, value, on})."""
    router = _router(site)
    if type(router).__name__ == "PhimoeTopKRouter":  # its weights are softmaxes too, but of logits near the chosen one only
        site.score, site.rule["sparsemixer"] = "softmax", getattr(router, "router_jitter_noise", None)
    site.shared = _shared(model, site) if site.shared is None else site.shared
    notes = {**_groups(site), **_bias(site), **_scale(site)}
    site.rule = {**{k: v for k, v in notes.items() if v is not None}, **site.rule}


def _router(site: Site) -> nn.Module | None:
    return None if site.router is None else bare(site.router)


def _shared(model: nn.Module, site: Site) -> int:
    """Experts that always run: 0 without such a module; several in one module count as the configuration says."""
    owners = [site.block, *([site.parent] if site.parent is not None else [])]
    found = [name for owner in owners for name, child in owner.named_children() if _SHARED.fullmatch(name)]
    if not found:
        return int("mlp" in dict(site.block.named_children()))  # Gemma: a dense feed-forward beside the experts, in the layer
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    places = (_router(site), site.block, text, config)
    counts = (getattr(place, name, None) for name in _COUNTS for place in places if place is not None)
    return next((c for c in counts if isinstance(c, int) and c > 0), 1)


def _groups(site: Site) -> dict[str, Any]:
    """Group-limited routing: how many groups, and how many of them a token may use."""
    for groups, kept in (("num_group", "topk_group"), ("n_group", "topk_group")):
        number = getattr(_router(site), groups, None)
        if isinstance(number, int) and number > 1:
            return {"groups": number, "groups_kept": getattr(_router(site), kept, None)}
    return {}


def _bias(site: Site) -> dict[str, Any]:
    """The bias that selects but does not weigh; logits alone do not give the decision without it."""
    for name, tensor in _tensors(site):
        if _BIAS.fullmatch(name) and (numbers := dense(tensor)) is not None:
            return {"bias": {"name": name, "values": [round(v, 6) for v in numbers.detach().float().flatten().tolist()]}}
    return {}


def _tensors(site: Site) -> Iterator[tuple[str, Tensor]]:
    router = _router(site)
    for module in (router, *(router.children() if router is not None else ()), site.block):
        if module is not None:
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                yield name, fetched(module, name, tensor)


def _scale(site: Site) -> dict[str, Any]:
    """A constant factor: of the weights where the router has it, of the block's output where the block has it."""
    for owner, where in ((_router(site), "weights"), (site.block, "output")):
        for name, value in vars(owner).items() if owner is not None else ():
            if _SCALE.fullmatch(name) and isinstance(value, int | float) and not torch.is_tensor(value):
                return {"scale": {"name": name, "value": float(value), "on": where}}
    return {}
