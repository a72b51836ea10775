"""What the generic shrinker cannot guess: one entry per special family, the fields it needs and what to know about it."""

from dataclasses import dataclass, field
from typing import Any

_HYBRID = ["linear_attention", "full_attention"] * 2
_GEMMA = ["sliding_attention", "full_attention"] * 2
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_PYRAMID = {0: 4, 2: 6, 3: 8}


@dataclass(frozen=True)
class Special:
    """Configuration fields that win over the generic sizes, and a remark for whoever traces the family."""

    fields: dict[str, Any] = field(default_factory=dict)
    notes: str = ""


SPECIAL: dict[str, Special] = {
    "bailing_hybrid": Special({"layer_group_size": 2}),
    "dbrx": Special(
        {
            "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
            "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 16, "moe_num_experts": 8, "moe_top_k": 2},
        },
        "the decision is made in the block, not in the router",
    ),
    "deepseek_v2": Special({"topk_method": "group_limited_greedy"}),
    "deepseek_v4": Special(
        {
            "mlp_layer_types": ["hash_moe", "moe", "hash_moe", "moe"],
            "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
            "head_dim": 16,
            "partial_rotary_factor": 0.25,
            "o_groups": 2,
        },
        "layers 0 and 2 choose experts by a table over vocabulary ids, filled at random",
    ),
    "diffusion_gemma_text": Special(
        {"num_experts": 8, "moe_intermediate_size": 16, "global_head_dim": 8, "layer_types": _GEMMA},
        "the router returns probabilities where others return logits; router and experts hang on the decoder layer",
    ),
    "doge": Special({"is_moe": True, "num_experts": 16}, "product keys, no router module"),
    "dots1": Special({"n_routed_experts": 16, "n_shared_experts": 1}),
    "dots3_note_text": Special(
        {
            "swa_num_attention_heads": 2,
            "swa_num_key_value_heads": 2,
            "swa_q_lora_rank": 8,
            "swa_kv_lora_rank": 8,
            "swa_head_dim": 16,
            "swa_qk_nope_head_dim": 8,
            "swa_v_head_dim": 8,
        }
    ),
    "dots3_note_vision_encoder": Special(
        {
            "router_scaling_factor": 1.5,
            "adapter_in_dim": 32,
            "adapter_out_dim": 32,
            "patch_size": 4,
            "per_layer_config": {i: {"num_local_experts": n, "num_experts_per_tok": 2} for i, n in _PYRAMID.items()},
        },
        "a vision tower; layers 0, 2 and 3 have 4, 6 and 8 experts",
    ),
    "ernie4_5_moe": Special({"moe_layer_interval": 2}),
    "ernie4_5_vl_moe_text": Special(
        {"moe_intermediate_size": [16, 8], "rope_parameters": _ROPE | {"mrope_section": [1, 1, 2]}},
        "two routers in each sparse layer: text tokens and vision tokens are routed apart",
    ),
    "gemma4_text": Special(
        {
            "enable_moe_block": True,
            "num_experts": 8,
            "moe_intermediate_size": 16,
            "global_head_dim": 8,
            "layer_types": _GEMMA,
        },
        "the router returns probabilities where others return logits; router and experts hang on the decoder layer",
    ),
    "glm4v_moe_text": Special({"head_dim": 16, "rope_parameters": _ROPE | {"mrope_section": [2, 1, 1]}}),
    "glm5_next_text": Special({"index_kpool": 2, "qk_rope_head_dim": 0}),
    "granitemoehybrid": Special({"layer_types": _HYBRID, "mamba_n_heads": 4}),
    "hunyuan_v1_moe": Special({"head_dim": 8}),
    "jamba": Special({"attn_layer_period": 2, "attn_layer_offset": 1}),
    "kimi_linear": Special({"layer_types": _HYBRID}),
    "laguna": Special({"moe_router_logit_softcapping": 5.0}),
    "lfm2_moe": Special({"layer_types": ["conv", "full_attention"] * 2}),
    "llama4_text": Special({"interleave_moe_layer_step": 2}, "the router's sigmoid scales what the experts read"),
    "longcat_flash": Special({"zero_expert_num": 4}, "experts 8 to 11 are identities"),
    "nemotron_h": Special(
        {
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "moe"],
            "mamba_num_heads": 8,
            "n_groups": 2,
        }
    ),
    "nllb-moe": Special(
        {"encoder_sparse_step": 2, "decoder_sparse_step": 2, "moe_eval_capacity_token_fraction": 0.2},
        "Transformers 5 executes experts 0 and 1 whatever the router decides",
    ),
    "phimoe": Special({"router_jitter_noise": 0.3}, "its jitter is also the threshold of the sparse softmax, in eval too"),
    "qwen3_omni_moe_talker_text": Special(
        {"shared_expert_intermediate_size": 16}, "reads embeddings: its own forward cannot embed ids"
    ),
    "qwen4_exp_text": Special(
        {
            "layer_types": ["linear_attention", "indexed_attention"] * 2,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 8,
            "indexer_compress_ratio": 2,
        }
    ),
    "step3p5": Special({"layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 8}),
    "switch_transformers": Special(
        {"num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2, "expert_capacity": 2},
        "at most two tokens of a sequence per expert, so that tokens are dropped",
    ),
    "vitpose_backbone": Special(
        {"num_experts": 3, "part_features": 8, "image_size": (32, 24), "patch_size": (8, 8)},
        "no router: the expert is the number of the data set, an argument",
    ),
    "zaya": Special({"num_experts_per_tok": 1}, "class 8 skips the experts: index 0 with weight 0"),
}
