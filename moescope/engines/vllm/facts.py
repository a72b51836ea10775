"""What a vLLM configuration and a loaded model say: which routers there are, and what cannot be recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InputError
from ...importers._core.model import Model, of_config
from ...routers.rule import Rule

_ALONE = {
    "pipeline_parallel_size": "pipeline parallelism",
    "data_parallel_size": "data parallelism",
    "decode_context_parallel_size": "context parallelism",
    "prefill_context_parallel_size": "context parallelism",
}
_PLAIN = {"CPURouter", "FusedTopKRouter", "FusedTopKBiasRouter", "GroupedTopKRouter"}
_NEVER = {
    "enable_dbo": "two batches at once (DBO)",
    "use_ubatching": "two batches at once (DBO)",
    "use_sequence_parallel_moe": "sequence-parallel experts",
}


@dataclass(frozen=True)
class Routed:
    """A router of a loaded model. `scale`: what its layer multiplies the sum of its experts by."""

    layer: int
    name: str
    router: Any
    top_k: int
    experts: int
    scale: float


def refused(config: Any) -> str | None:
    """Why a server of this configuration cannot be recorded; None where it can."""
    parallel = config.parallel_config
    why = [words for name, words in _ALONE.items() if int(getattr(parallel, name, 1) or 1) > 1]
    why += [words for name, words in _NEVER.items() if getattr(parallel, name, False) is True]
    if getattr(config.model_config, "is_encoder_decoder", False) is True:
        why.append("a model with an encoder")
    if not why:
        return None
    return f"the server runs with {', '.join(dict.fromkeys(why))}, where a forward's rows are not those of one batch"


def routers_of(model: Any) -> list[Routed]:
    """The routers of a loaded model by layer. InputError where one cannot be listened to, or where they are not alike."""
    found: dict[int, Routed] = {}
    for module in model.modules():
        router = getattr(module, "router", None)
        if router is not None and isinstance(getattr(module, "layer_name", None), str) and id(router) not in found:
            found[id(router)] = _routed(module, router)
    routers = sorted(found.values(), key=lambda one: (one.layer, one.name))
    if not routers:
        raise InputError(f"{type(model).__name__} has no router that vLLM knows: there is nothing to record")
    kinds = {(one.top_k, one.experts) for one in routers}
    if len(kinds) > 1 or len({one.layer for one in routers}) < len(routers):
        raise InputError(
            f"the routers of {type(model).__name__} are not alike (experts per decision and experts: {sorted(kinds)}) or share "
            "layers, which cannot be recorded yet: trace the model with moescope trace"
        )
    return routers


def _routed(module: Any, router: Any) -> Routed:
    name = module.layer_name
    method = getattr(module, "_quant_method", None)
    if getattr(method, "is_monolithic", False) is True:
        raise InputError(
            f"the kernel of {name} ({type(method).__name__}) routes by itself and calls no router: start vLLM with another "
            "MoE backend to record it"
        )
    if not callable(getattr(router, "_compute_routing", None)):
        raise InputError(f"the router of {name} ({type(router).__name__}) has no decision that can be listened to")
    config = getattr(module, "moe_config", None)
    experts = getattr(config, "num_logical_experts", None) or router.global_num_experts
    return Routed(
        _layer(name), name, router, int(router.top_k), int(experts), float(getattr(module, "routed_scaling_factor", 1.0))
    )


def rule_of(routed: Routed, config: Mapping[str, Any]) -> Rule | None:
    """The rule of a router: what its attributes say, its weights multiplied by what the model's own `config` says, where it
    does. None for routers of other forms: a function of the model's own, a table of tokens, another bias for pictures."""
    own = routed.router
    score, normalized = getattr(own, "scoring_func", None), getattr(own, "renormalize", None)
    others = ("custom_routing_function", "_hash_indices_table", "bias_vl")
    if score not in ("softmax", "sigmoid", "sqrtsoftplus") or not isinstance(normalized, bool):
        return None
    if any(getattr(own, name, None) is not None for name in others) or type(own).__name__ not in _PLAIN:
        return None
    bias = getattr(own, "e_score_correction_bias", None)
    groups, kept = _groups(own, routed.experts)
    said = config.get("routed_scaling_factor")
    scale = said if isinstance(said, int | float) else routed.scale * float(getattr(own, "routed_scaling_factor", 1.0))
    values = None if bias is None else bias.detach().float().cpu().numpy()
    return Rule(score, normalized, float(scale), values, groups, kept, 1 if bias is None else 2)


def _groups(router: Any, experts: int) -> tuple[int, int]:
    """(groups, how many are kept)."""
    groups, kept = getattr(router, "num_expert_group", None) or 1, getattr(router, "topk_group", None) or 1
    grouped = getattr(router, "use_grouped_topk", True) and 1 < groups < experts and experts % groups == 0
    return (int(groups), int(kept)) if grouped else (1, 1)


def _layer(name: str) -> int:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if not numbers:
        raise InputError(f"the name {name} does not say which layer it is of")
    return numbers[0]


def model_of(config: Any, routers: list[Routed]) -> Model:
    """The model that is served, its layers and experts as they were loaded."""
    said, name = config.model_config.hf_config, str(config.model_config.model)
    own = said.to_dict() if hasattr(said, "to_dict") else dict(said)
    layers, first = tuple(one.layer for one in routers), routers[0]
    try:
        model = of_config(own, name)
    except InputError:
        model = Model(name, first.experts, first.top_k, max(layers) + 1, layers, family=own.get("model_type"), config=own)
    return replace(model, routed=layers, experts=first.experts, top_k=first.top_k, by_weight=True)
