"""mixlora: LoRAs of a shared feed-forward, chosen as Mixtral chooses."""

from pathlib import Path
from typing import Any

import torch

from .peft import base, inputs


def mixlora(folder: Path, whole: bool = True, **settings: Any) -> Any:
    """Four experts, two of them for each token. `whole`: experts put to evaluation by hand, which `eval()` does not reach."""
    from mixlora.config import MixLoraConfig
    from mixlora.model import inject_adapter_in_model

    names = ("gate_proj", "up_proj", "down_proj", "q_proj")
    config = MixLoraConfig.from_config(
        {
            "base_model_name_or_path": "tiny", "task_type": "CAUSAL_LM", "peft_type": "MIXLORA", "routing_strategy": "mixlora",
            "r": 4, "lora_alpha": 8, "lora_dropout": 0.2, "target_modules": list(names), "num_experts": 4, "top_k": 2,
            "act_fn": "silu", **settings,
        }
    )  # fmt: skip
    config.adapter_name_, config.dtype_ = "default", torch.float32
    model = base()
    torch.manual_seed(7)
    weights: dict[str, torch.Tensor] = {}
    for layer, block in enumerate(model.model.layers):
        weights[f"mixlora.layers.{layer}.mlp.moe_gate.weight"] = torch.randn(4, 16)
        sites = [(f"self_attn.{n}", block.self_attn.q_proj) for n in names[3:]]
        sites += [(f"mlp.{n}.experts.{e}", getattr(block.mlp, n)) for n in names[:3] for e in range(4)]
        for path, linear in sites:
            out, into = linear.weight.shape
            weights[f"mixlora.layers.{layer}.{path}.lora_A.weight"] = torch.randn(4, into) / 4
            weights[f"mixlora.layers.{layer}.{path}.lora_B.weight"] = torch.randn(out, 4) / 2
    inject_adapter_in_model(model, config, weights)
    model.eval()
    for block in model.model.layers if whole else ():
        block.mlp.mixlora_moes["default"].eval()
        for expert in block.mlp.mixlora_moes["default"].experts_.values():
            expert.eval()
    return model


READY = {"model": lambda folder, _: (mixlora(folder), inputs())}
