"""Small random models of Transformers, written as GGUF by the package `gguf`; read back by llama.cpp, which shares no code."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

EXPERTS, TOP_K, WIDTH, HEADS, VOCABULARY = 8, 2, 64, 4, 300
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
WORDS = ["▁", "▁the", "▁a", "▁cat", "▁dog", "▁sat", "▁on", "▁mat", "▁and", "▁ran", "ing", "ed", "er", "th", "he", "in", "an"]


def model_of(family: str, seed: int = 0, **more: Any) -> Any:
    """A random model of two or three layers, float32, in evaluation mode."""
    common = {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "num_experts_per_tok": TOP_K, "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "olmoe": {"num_experts": EXPERTS, "intermediate_size": 32, "norm_topk_prob": False,
                  "num_key_value_heads": HEADS},
        "mixtral": {"num_local_experts": EXPERTS, "intermediate_size": 32},
        "qwen3_moe": {
            "num_experts": EXPERTS, "moe_intermediate_size": 32, "intermediate_size": 96, "head_dim": 16,
            "num_hidden_layers": 3, "norm_topk_prob": True,
        },
        "qwen2_moe": {
            "num_experts": EXPERTS, "moe_intermediate_size": 32, "intermediate_size": 96, "norm_topk_prob": False,
            "shared_expert_intermediate_size": 48,
        },
        "glm4_moe": {
            "n_routed_experts": EXPERTS, "moe_intermediate_size": 32, "intermediate_size": 96, "head_dim": 16,
            "num_hidden_layers": 3, "first_k_dense_replace": 1, "n_shared_experts": 1, "routed_scaling_factor": 1.5,
            "norm_topk_prob": True, "use_qk_norm": True, "partial_rotary_factor": 1.0, "n_group": 1, "topk_group": 1,
            "attention_bias": True,
        },
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(family, **(common | own[family] | more))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.05 if "norm" in name else 0.12)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(buffer, 0.0, 0.2)
    return model


def write(model: Any, path: Path, kind: str = "F32", words: bool = False, **facts: Any) -> Path:
    """The model as a GGUF: matrices of experts, attention and head as `kind`, everything else float32. `words`: with a small
    vocabulary (SentencePiece). `facts`: {key without the architecture: value} that are said otherwise; None leaves one out."""
    config, arch = model.config, _ARCHITECTURES[model.config.model_type]
    file = GGUFWriter(path, arch)
    said: dict[str, Any] = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "expert_count": EXPERTS, "expert_used_count": config.num_experts_per_tok, "vocab_size": config.vocab_size,
        "rope.dimension_count": _head(config), "attention.key_length": _head(config), "attention.value_length": _head(config),
        **_OWN.get(model.config.model_type, lambda config: {})(config), **facts,
    }  # fmt: skip
    for key, value in said.items():
        if value is not None:
            _add(file, f"{arch}.{key}", value)
    file.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    file.add_float32(f"{arch}.rope.freq_base", 10000.0)
    _vocabulary(file, words)
    for name, tensor in _tensors(model):
        _tensor(file, name, tensor.detach().float().numpy(), kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


_ARCHITECTURES = {
    "olmoe": "olmoe", "mixtral": "llama", "qwen3_moe": "qwen3moe", "qwen2_moe": "qwen2moe", "glm4_moe": "glm4moe",
}  # fmt: skip
_OWN: dict[str, Any] = {
    "qwen3_moe": lambda config: {"expert_feed_forward_length": config.moe_intermediate_size},
    "qwen2_moe": lambda config: {
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_feed_forward_length": config.shared_expert_intermediate_size,
    },
    "glm4_moe": lambda config: {
        "expert_feed_forward_length": config.moe_intermediate_size, "leading_dense_block_count": config.first_k_dense_replace,
        "expert_shared_count": 1, "expert_weights_scale": float(config.routed_scaling_factor), "expert_weights_norm": True,
        "expert_gating_func": 2, "nextn_predict_layers": 0,
    },
}  # fmt: skip


def _head(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _add(file: GGUFWriter, key: str, value: Any) -> None:
    kinds: dict[type, Any] = {bool: file.add_bool, int: file.add_uint32, float: file.add_float32, str: file.add_string}
    kinds[type(value)](key, value)


def _vocabulary(file: GGUFWriter, words: bool) -> None:
    if not words:
        file.add_tokenizer_model("no_vocab")
        return
    pieces = [*PIECES, *WORDS]
    pieces += [chr(97 + i) for i in range(VOCABULARY - len(pieces))]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (VOCABULARY - 259)]  # unknown, control, byte, normal
    file.add_tokenizer_model("llama")
    file.add_token_list(pieces)
    file.add_token_scores([0.0] * 259 + [-float(i) for i in range(VOCABULARY - 259)])
    file.add_token_types(kinds)
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_add_bos_token(True)


def _tensor(file: GGUFWriter, name: str, data: np.ndarray, kind: str) -> None:
    if kind == "F32" or data.ndim < 2 or "norm" in name or "gate_inp" in name or name == "token_embd.weight":
        file.add_tensor(name, np.ascontiguousarray(data, np.float32))
    else:
        form = GGMLQuantizationType[kind]
        file.add_tensor(name, quantize(np.ascontiguousarray(data, np.float32), form), raw_dtype=form)


def _tensors(model: Any) -> Any:
    inner = model.model
    yield "token_embd.weight", inner.embed_tokens.weight
    yield "output_norm.weight", inner.norm.weight
    yield "output.weight", model.lm_head.weight
    for number, layer in enumerate(inner.layers):
        for name, tensor in _layer(model.config, layer):
            yield f"blk.{number}.{name}", tensor


def _layer(config: Any, layer: Any) -> Any:
    attention = layer.self_attn
    yield "attn_norm.weight", layer.input_layernorm.weight
    after = "post_attention_norm" if config.model_type == "glm4_moe" else "ffn_norm"
    yield f"{after}.weight", layer.post_attention_layernorm.weight
    for short in "qkv":
        own = getattr(attention, f"{short}_proj")
        weight = own.weight
        if config.model_type == "mixtral" and short != "v":
            weight = _turned(weight, config.num_attention_heads if short == "q" else config.num_key_value_heads)
        yield f"attn_{short}.weight", weight
        if own.bias is not None:
            yield f"attn_{short}.bias", own.bias
        if short != "v" and hasattr(attention, f"{short}_norm"):
            yield f"attn_{short}_norm.weight", getattr(attention, f"{short}_norm").weight
    yield "attn_output.weight", attention.o_proj.weight
    block = layer.mlp
    if not hasattr(block, "experts"):
        yield from ((f"ffn_{part}.weight", getattr(block, f"{part}_proj").weight) for part in ("gate", "up", "down"))
        return
    router = block.gate
    yield "ffn_gate_inp.weight", router.weight
    half = block.experts.gate_up_proj.shape[1] // 2
    yield "ffn_gate_exps.weight", block.experts.gate_up_proj[:, :half]
    yield "ffn_up_exps.weight", block.experts.gate_up_proj[:, half:]
    yield "ffn_down_exps.weight", block.experts.down_proj
    if (bias := getattr(router, "e_score_correction_bias", None)) is not None:
        yield "exp_probs_b.bias", bias
    shared = getattr(block, "shared_expert", getattr(block, "shared_experts", None))
    if shared is not None:
        yield from ((f"ffn_{part}_shexp.weight", getattr(shared, f"{part}_proj").weight) for part in ("gate", "up", "down"))
    if hasattr(block, "shared_expert_gate"):
        yield "ffn_gate_inp_shexp.weight", block.shared_expert_gate.weight[0]


def _turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries and keys as llama.cpp rotates them for this architecture: pairs side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
