"""Which layers of a model are routed, over how many experts: read from its configuration, which names neither alike twice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...foreign import doing
from .hub import hub_file

_EXPERTS = ("n_routed_experts", "num_local_experts", "moe_num_experts", "num_routed_experts", "num_experts")
_TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_k",
    "moe_top_k",
    "top_k_experts",
    "num_selected_experts",
)
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_INNER = ("text_config", "llm_config", "language_config", "thinker_config", "ffn_config")
_ROUTED_WORDS = ("sparse", "moe", "hash_moe", "E")
_MOST = 16 << 20  # bytes of a configuration
_LIMITS = {"experts": 1 << 16, "top_k": 1 << 10, "layers": 10_000}
BY_WEIGHT = frozenset(
    [
        "olmoe",
        "flex_olmo",
        "mixtral",
        "minimax",
        "qwen2_moe",
        "qwen3_moe",
        "qwen3_next",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_vl_moe",
        "qwen3_vl_moe_text",
        "qwen3_omni_moe",
        "qwen3_omni_moe_text",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "granitemoe_swa",
        "jamba",
        "jetmoe",
        "gpt_oss",
        "dbrx",
        "hunyuan_v1_moe",
        "mellum",
        "cohere2_moe",
        "aria",
        "aria_text",
        "llama4",
        "llama4_text",
        "flint",
    ]
)
"""Families whose routers take the k largest scores and weigh by those: no bias, groups or scale of an expert between the
two."""


@dataclass(frozen=True)
class Model:
    """A model's routers, as far as captures need them.

    `routed`: numbers of the layers that have a router; `layers`: all of them; `by_weight`: the k chosen come in the order of
    their weights where an engine takes them in the order of their scores (None: not known); `normalized`: whether weights are
    divided by their sum (None: not known).
    """

    name: str
    experts: int
    top_k: int
    layers: int
    routed: tuple[int, ...]
    family: str | None = None
    score: str | None = None
    shared: int | None = None
    by_weight: bool | None = None
    normalized: bool | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    varies: bool = False  # decisions have at most top_k experts

    @property
    def said(self) -> str:
        """As in "4 routers of 16 experts, top-4"."""
        return f"{len(self.routed)} routers of {self.experts} experts, top-{self.top_k}"


def read_model(name: str | Path) -> Model:
    """The model of a config.json, of a folder that has one, or of a name of the hub. InputError where it says too little."""
    config = _config(Path(name), str(name))
    return of_config(config, str(name))


def of_config(config: Mapping[str, Any], name: str) -> Model:
    """The model that a configuration describes."""
    text = _text(config)
    found = {
        "experts": _number(text, _EXPERTS), "top_k": _number(text, _TOP_K),
        "layers": _number(text, _LAYERS) or len(_blocks(text)),
    }  # fmt: skip
    for what, value in found.items():
        if not value:
            known = {"experts": _EXPERTS, "top_k": _TOP_K, "layers": _LAYERS}[what]
            raise InputError(
                f"the configuration of {name} does not say its number of {what.replace('_', '-')} (one of {', '.join(known)}): "
                "give --experts, --top-k and --layers instead of --model"
            )
        if value > _LIMITS[what]:
            raise InputError(f"the configuration of {name} says {value} {what}, which no model has; give the model's own")
    if found["top_k"] > found["experts"]:
        raise InputError(
            f"the configuration of {name} says top-{found['top_k']} of {found['experts']} experts, which no model has; give "
            "the model's own"
        )
    routed = tuple(i for i in range(found["layers"]) if _is_routed(text, i, found["layers"]))
    if not routed:
        raise InputError(f"the configuration of {name} has no layer with a router; give the model that was served")
    shared = text.get("n_shared_experts", text.get("num_shared_experts"))
    return Model(
        name, found["experts"], found["top_k"], found["layers"], routed,
        family=text.get("model_type") or config.get("model_type"), score=_score(text),
        shared=shared if isinstance(shared, int) and not isinstance(shared, bool) else None,
        by_weight=_by_weight(text), normalized=_normalized(text), config=config,
    )  # fmt: skip


def _config(path: Path, name: str) -> Mapping[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        found = hub_file(name, "config.json")
        if found is None:
            raise InputError(
                f"there is no configuration at {name}: name the model's folder, its config.json or its name on the hub"
            )
        file = found
    with doing(f"reading {file}", InputError):
        if file.stat().st_size > _MOST:
            raise InputError(f"{file} is no configuration: it has {file.stat().st_size:,} bytes; name the model's config.json")
        found = json.loads(file.read_text())
    if not isinstance(found, dict):
        raise InputError(f"{file} is no configuration: it holds no JSON object; name the model's config.json or its folder")
    return found


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model, where a configuration has several."""
    for _ in range(3):
        inner = next((config[key] for key in _INNER if isinstance(config.get(key), dict)), None)
        if inner is None or (_number(config, _EXPERTS) and _number(config, _TOP_K)):
            break
        config = {**config, **inner}
        config = {key: value for key, value in config.items() if key not in _INNER or value is not inner}
    return config


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
            value = max(value)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def _blocks(config: Mapping[str, Any]) -> list[Any]:
    """What every layer is, where the configuration lists that."""
    for name in ("mlp_layer_types", "layers_block_type", "hybrid_override_pattern"):
        value = config.get(name)
        if isinstance(value, str):
            return list(value)
        if isinstance(value, list):
            return value
    return []


def _is_routed(config: Mapping[str, Any], layer: int, layers: int) -> bool:
    blocks, own, every = _blocks(config), config.get("moe_layers"), config.get("moe_layer_freq")
    if len(blocks) == layers and any(block in _ROUTED_WORDS for block in blocks):
        return blocks[layer] in _ROUTED_WORDS
    if isinstance(own, list):
        return layer in own
    if isinstance(config.get("moe_layers_enum"), str):
        return str(layer) in config["moe_layers_enum"].split(",")
    if isinstance(every, list) and len(every) == layers:
        return bool(every[layer])
    return _by_numbers(config, layer)


def _by_numbers(config: Mapping[str, Any], layer: int) -> bool:
    def number(name: str, otherwise: int) -> int:
        value = config.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else otherwise

    dense_first = max(number("first_k_dense_replace", 0), number("num_dense_layers", 0))
    first, last = number("moe_layer_start_index", 0), number("moe_layer_end_index", -1)
    span = layer >= max(dense_first, first) and (last < 0 or layer <= last)
    steps = [number(n, 1) for n in ("decoder_sparse_step", "moe_layer_interval", "interleave_moe_layer_step")]
    period, offset = number("expert_layer_period", 1), number("expert_layer_offset", 0)
    turn = all(step < 2 or (layer + 1) % step == 0 for step in steps) and (period < 2 or layer % period == offset)
    every = number("moe_layer_freq", 1)
    return span and turn and (every < 2 or layer % every == 0) and layer not in (config.get("mlp_only_layers") or ())


def _score(config: Mapping[str, Any]) -> str | None:
    said = config.get("scoring_func") or config.get("score_function") or config.get("expert_selection_fn")
    if isinstance(said, str):
        return said
    return "softmax" if config.get("model_type") in BY_WEIGHT - {"llama4", "llama4_text"} else None


def _by_weight(config: Mapping[str, Any]) -> bool | None:
    groups = config.get("n_group") or config.get("num_expert_group") or 1
    if config.get("topk_method") == "noaux_tc" or config.get("use_expert_bias") or (isinstance(groups, int) and groups > 1):
        return False
    if config.get("model_type") == "deepseek_v2" and config.get("topk_method", "greedy") == "greedy":
        return True
    return True if config.get("model_type") in BY_WEIGHT else None


def _normalized(config: Mapping[str, Any]) -> bool | None:
    said = config.get("norm_topk_prob")
    if isinstance(said, bool):
        return said
    return True if config.get("model_type") in ("mixtral", "gpt_oss", "granitemoe", "granitemoehybrid", "minimax") else None
