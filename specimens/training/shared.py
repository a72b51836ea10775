"""What both trainings share: the balancing loss per layer, the learning rate, rounding to bf16 and saving."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel


def balance(logits: torch.Tensor, chosen: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Load-balancing loss of ONE router over the tokens `kept` (Switch Transformer, eq. 4-6): 1 when balanced.

    logits (T, E), chosen (T, k) expert ids, kept (T,) bool: not padding. Transformers' own form joins all layers before
    it averages, and so asks for balance of the layers' average only; a single layer may then be uneven.
    """
    experts = logits.shape[-1]
    share = nn.functional.one_hot(chosen[kept], experts).float().mean(dim=(0, 1))
    probability = logits[kept].float().softmax(-1).mean(0)
    return experts * (share * probability).sum()


def learning_rate(step: int, steps: int, peak: float, warmup: int = 60) -> float:
    """Linear warm-up, then cosine down to a twentieth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))))


def optimizer(model: nn.Module, peak: float) -> torch.optim.Optimizer:
    """AdamW; matrices decay, vectors do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Writes config.json and the weights rounded to bf16. The model itself goes on in float32.

    bf16 values are float32-exact, so a model loaded in float32, which config.json asks for, computes with just the numbers in
    the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    full = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.to(torch.bfloat16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
    model.to(torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(full[name])
