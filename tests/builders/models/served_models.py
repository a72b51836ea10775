"""Tiny random models that a serving engine loads: a folder with config, weights and a tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY = 300


def _common(layers: int = 2) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "tie_word_embeddings": False, "rope_theta": 10000.0,
    }  # fmt: skip


def _qwen3_moe() -> Any:
    return transformers.Qwen3MoeConfig(
        **_common(3), head_dim=32, intermediate_size=64, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=3,
        norm_topk_prob=True, mlp_only_layers=[1],
    )  # fmt: skip


def _mixtral() -> Any:
    return transformers.MixtralConfig(
        **_common(), head_dim=32, intermediate_size=64, num_local_experts=8, num_experts_per_tok=2
    )


def _olmoe() -> Any:
    return transformers.OlmoeConfig(
        **_common(), intermediate_size=32, num_experts=16, num_experts_per_tok=4, norm_topk_prob=False
    )


def _deepseek_v3() -> Any:
    return transformers.DeepseekV3Config(
        **_common(3), intermediate_size=64, moe_intermediate_size=32, n_routed_experts=16, num_experts_per_tok=4, n_group=4,
        topk_group=2, n_shared_experts=1, routed_scaling_factor=2.5, first_k_dense_replace=1, norm_topk_prob=True,
        topk_method="noaux_tc", scoring_func="sigmoid",
        q_lora_rank=32, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
    )  # fmt: skip


MODELS: dict[str, Callable[[], Any]] = {
    "qwen3_moe": _qwen3_moe, "mixtral": _mixtral, "olmoe": _olmoe, "deepseek_v3": _deepseek_v3,
}  # fmt: skip


def wide() -> Any:
    """For benchmarks: 8 layers of 32 experts, top-8."""
    large = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
    return transformers.OlmoeConfig(**_common(8) | large, intermediate_size=64, num_experts=32, num_experts_per_tok=8)


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    """The folder of a model (or `wide`) in float32, its weights large enough that routers disagree."""
    torch.manual_seed(seed)
    config = wide() if name == "wide" else MODELS[name]()
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim > 1:
                value.mul_(8 if "gate" in key or "router" in key else 3)
        for key, value in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                value.uniform_(-0.2, 0.2)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    """One token a byte and a few more, `<s>` and `</s>` among them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", *alphabet]
    words += [f"<{n}>" for n in range(VOCABULARY - len(words))]
    inner = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
