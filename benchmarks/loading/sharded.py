"""A Mixtral of random weights on the disk, in shards, made without ever holding more than one shard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from moescope.models.loading import specimens

SHAPE = {
    "vocab_size": 32_000,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}
_SHARD = 512 << 20  # bytes


def make(folder: Path, dtype: torch.dtype = torch.bfloat16, **changes: int) -> int:
    """Write a checkpoint with a tokenizer into `folder`; gives the bytes of its weights. What is there already stays."""
    from transformers import MixtralConfig

    index = folder / "model.safetensors.index.json"
    if not index.exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = MixtralConfig(**{**SHAPE, **changes}, dtype=dtype, architectures=["MixtralForCausalLM"])
        config.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(specimens()["mixtral"] / name, folder / name)
        index.write_text(json.dumps(_written(folder, config, dtype)))
    return int(json.loads(index.read_text())["metadata"]["total_size"])


def _written(folder: Path, config: object, dtype: torch.dtype) -> dict[str, object]:
    """Shards of random weights; gives their index."""
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = held = number = 0
    random = torch.Generator().manual_seed(0)
    for name, shape in [*_shapes(config), ("", ())]:
        if shard and (not name or held > _SHARD):
            file = f"model-{number:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard, held, number = {}, 0, number + 1
        if name:
            shard[name] = _random(shape, dtype, random)
            held += shard[name].nbytes
            total += shard[name].nbytes
    return {"metadata": {"total_size": total}, "weight_map": places}


def _random(shape: tuple[int, ...], dtype: torch.dtype, random: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    return (torch.randn(shape, generator=random) * shape[-1] ** -0.5).to(dtype)


def _shapes(config: object) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes as published checkpoints of Mixtral have them: each expert's three matrices apart."""
    c: dict[str, int] = vars(config)
    wide, deep = c["hidden_size"], c["intermediate_size"]
    head = wide // c["num_attention_heads"]
    yield "model.embed_tokens.weight", (c["vocab_size"], wide)
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for part in ("q", "k", "v", "o"):
            heads = c["num_attention_heads"] if part in "qo" else c["num_key_value_heads"]
            shape = (wide, heads * head) if part == "o" else (heads * head, wide)
            yield f"{at}self_attn.{part}_proj.weight", shape
        yield f"{at}block_sparse_moe.gate.weight", (c["num_local_experts"], wide)
        for expert in range(c["num_local_experts"]):
            for part, shape in (("w1", (deep, wide)), ("w2", (wide, deep)), ("w3", (deep, wide))):
                yield f"{at}block_sparse_moe.experts.{expert}.{part}.weight", shape
        yield f"{at}input_layernorm.weight", (wide,)
        yield f"{at}post_attention_layernorm.weight", (wide,)
    yield "model.norm.weight", (wide,)
    yield "lm_head.weight", (c["vocab_size"], wide)
