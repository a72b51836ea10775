"""LoRAMoE (Dou et al. 2023, arXiv 2312.09979): in every Linear of the feed-forward, all LoRA experts weighed by a softmax.

o = W x + (α / r) Σ_i softmax(W_g x)_i B_i A_i x, one router per Linear; as `lora_route` of the
published peft/tuners/lora.py (Ablustrund/LoRAMoE a2470ef). The localized balancing loss (two kinds of experts) belongs to
training alone.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_adapters import example_text, random_weights
from ._parts_mixtures import AdaptedLM, Context, Decision, LoraMixture, everyone, put_on

READS = "text"
example = example_text


class LoRAMoE(LoraMixture):
    """One Linear."""

    def __init__(self, base: nn.Linear, experts: int, context: Context) -> None:
        super().__init__(base, experts, context)
        self.lora_route = nn.Linear(base.in_features, experts, bias=False)
        names = {n: f"{'world' if n < experts // 2 else 'task'} {n}" for n in range(experts)}
        self.mixture = {"experts": experts, "names": names, "score": "softmax"}

    def route(self, hidden: Tensor) -> Decision:  # type: ignore[override]
        """(B·S, E) softmax in float32."""
        logits = self.lora_route(hidden).flatten(0, 1)
        weights = logits.softmax(-1, dtype=torch.float32).to(hidden.dtype)
        return Decision(everyone(weights), weights, logits)


def build(seed: int = 0, experts: int = 4, **sizes: Any) -> nn.Module:
    """Experts at gate, up and down of each layer."""
    torch.manual_seed(seed)
    model = AdaptedLM("lora_moe", **sizes)
    put_on(model, r"mlp\.(gate|up|down)_proj$", lambda base: LoRAMoE(base, experts, model.context))
    return random_weights(model)
