"""Tiny V-MoEs with random weights, one of each kind of router: for proofs and tables."""

from typing import Any

import torch

from .config import VMoEConfig
from .model import VMoE

_ROUTERS: dict[str, dict[str, Any]] = {
    "token_choice": {"num_selected_experts": 2, "dispatcher": {"capacity_factor": 0.5, "batch_priority": True}},
    "expert_choice": {"name": "NoisyTopItemsPerExpertRouter", "dispatcher": {"capacity_factor": 1.0}},
    "soft": {"name": "SoftRouter", "num_slots": 2},
}


def small(kind: str = "token_choice") -> VMoE:
    """Two layers, four experts in the second; images of 12 × 12 in groups of four."""
    moe = {"num_experts": 4, "layers": [1], "group_size": 40, "split_rngs": True, "router": _ROUTERS[kind]}
    encoder = {"num_layers": 2, "mlp_dim": 8, "num_heads": 2, "moe": moe}
    shape = {"num_classes": 3, "patch_size": [4, 4], "hidden_size": 16, "image_size": [12, 12]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = VMoE(VMoEConfig.from_dict({**shape, "head_kernel_zero_init": False, "encoder": encoder}))
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()
