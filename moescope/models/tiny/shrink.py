"""One generic shrinker: every size that a configuration declares, made tiny by the name of its field."""

import dataclasses
import re
from copy import deepcopy
from typing import Any

from transformers import PreTrainedConfig

HIDDEN, LAYERS, HEADS, EXPERTS, VOCAB = 32, 4, 4, 8, 97
TYPES = ["sparse", "dense", "sparse", "sparse"]

# The first pattern that matches the whole name of a field decides. Sizes apply where the family's own default is a
# number; a default of None is the family's to fill in, except for the names under ALWAYS.
ALWAYS: tuple[tuple[str, Any], ...] = (
    (r"top_k_experts", 2),
    (r"mlp_layer_types", TYPES),
    (r"mlp_only_layers", [1]),
    (r"pad_token_id", 0),
)
SCALE = r"(routed_|router_|moe_router_|moe_routed_)scaling_factor|route_scale"
COUNT = r"(moe_)?(num|n)_(local_|routed_)?experts"
SIZES: tuple[tuple[str, int], ...] = (
    (r".*vocab_size.*", VOCAB),
    (r"bos_token_id|decoder_start_token_id|eod_token_id|sep_token_id", 1),
    (r"eos_token_id", 2),
    (r"(num_|n_|num_hidden_|encoder_|decoder_|num_encoder_|num_decoder_)layers", LAYERS),
    (r"(moe_|router_)?hidden_size|d_model", HIDDEN),
    (r".*intermediate_size.*|.*ffn_dim|.*ffn_hidden_size|d_ff|share_expert_dim|hidden_size_per_layer_input", 16),
    (r"(.*_)?num_key_value_heads|.*num_key_heads|.*_kv_heads", 2),
    (r"(num|n|.*_num|.*_n|encoder|decoder)_(attention_|value_)?heads", HEADS),
    (r".*head_dim|d_kv|kv_channels|rotary_dim|mamba_d_state|ssm_state_size", 8),
    (r".*lora_rank|.*lowrank|gated_norm_rank|d_rel", 8),
    (COUNT, EXPERTS),
    (r"num_experts_per_tok|moe_topk|moe_k", 2),
    (r"(moe_num|n|num)_shared_experts", 1),
    (r"first_k_dense_replace|num_dense_layers", 1),
    (r"sliding_window(_size)?|attention_chunk_size|index_topk|rel_extent|block_size|.*chunk_size", 8),
)


def tiny_config(config: type[PreTrainedConfig], **special: Any) -> PreTrainedConfig:
    """The configuration made tiny: hidden size 32, 4 layers, 8 experts (16 in 4 groups), vocabulary 97; `special` wins.

    Scales of routing weights that a family leaves at 1 become 1.5, so that a scale forgotten by a reader shows.
    """
    own = [f for f in dataclasses.fields(config) if f.name not in _inherited()]
    sizes = {f.name: size for f in own if (size := _size(f)) is not None}
    if "kv_lora_rank" in sizes:
        sizes["num_key_value_heads"] = HEADS
    if "n_group" in {f.name for f in own}:
        sizes |= {name: 2 * EXPERTS for name in sizes if re.fullmatch(COUNT, name)}
        sizes |= {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 4}
    return config(**deepcopy(sizes | special))


def _inherited() -> set[str]:
    return {f.name for f in dataclasses.fields(PreTrainedConfig)}


def _size(field: dataclasses.Field) -> Any:
    if field.default == 1.0 and re.fullmatch(SCALE, field.name):
        return 1.5
    is_count = isinstance(field.default, int) and not isinstance(field.default, bool)
    rules = ALWAYS + SIZES if is_count else ALWAYS
    return next((size for pattern, size in rules if re.fullmatch(pattern, field.name)), None)
