"""MoLE (Wu et al. 2024, arXiv 2404.13628): whole LoRAs, one per task, mixed anew in every block by a gate on what they make.

In a block each LoRA i runs attention and feed-forward with its own low-rank weights alone, E_i(x) = x' + f_FFN(LN(x') | Δθ_i),
x' = f_Attn(LN(x) | Δθ_i); ε = Flatten(Normalize(E_1 ⊕ ... ⊕ E_N))ᵀ · e, G = softmax(ε / τ), O(x) = F_θ(x) + Σ_i G_i E_i(x)
(from memory: the paper was not at hand, and yushuiwx/MoLE has no code). ε has one number per LoRA
for the whole sequence, so a decision is one of a sequence; the sum is over its tokens up to `PLACES`, divided by the root of
their number. `masked` LoRAs get none of the weight, which the others share in proportion.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._parts_adapters import Attention, FeedForward, example_text, random_weights
from ._parts_mixtures import AdaptedLM, Context, Decision, LowRank, Mixture, everyone, put_on

READS = "text"
PLACES = 64
example = example_text


class LoraBlock(nn.Module):
    """A block whose projections are low-rank: what one LoRA makes of a block's input."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.attention, self.ffn = Attention(hidden), FeedForward(hidden, inner)
        for owner in (self.attention, self.ffn):
            for name, module in list(owner.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(owner, name, LowRank(module.in_features, module.out_features))

    def forward(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        """(B, S, H)"""
        width = hidden.shape[-1:]
        middle = self.attention(functional.layer_norm(hidden, width), allowed)
        return middle + self.ffn(functional.layer_norm(middle, width))  # type: ignore[no-any-return]


class MoLE(Mixture):
    """One block with its LoRAs."""

    def __init__(self, base: Any, experts: int, context: Context) -> None:
        super().__init__()
        hidden, inner = base.mlp.gate_proj.in_features, base.mlp.gate_proj.out_features
        self.base_layer, self.context, self.masked = base, context, frozenset[int]()
        self.adapters = nn.ModuleList(LoraBlock(hidden, inner) for _ in range(experts))
        self.gate = nn.Parameter(torch.randn(experts, experts, PLACES, hidden) / 4)
        self.temperature = nn.Parameter(torch.ones(()))
        self.mixture = {"experts": experts, "unit": "sequence", "place": "block", "score": "softmax"}
        self.mixture["names"] = {n: f"lora {n}" for n in range(experts)}

    def route(self, hidden: Tensor, allowed: Tensor) -> Decision:  # type: ignore[override]
        """(B, N), from everything that the LoRAs make."""
        made = torch.stack([adapter(hidden, allowed) for adapter in self.adapters], 1)[:, :, :PLACES]
        made = functional.layer_norm(made, made.shape[-1:]) * self.context.mask[:, None, :PLACES, None]
        numbers = torch.einsum("bish,jish->bj", made, self.gate[:, :, : made.shape[2]])
        logits = numbers / made[0].numel() ** 0.5 / self.temperature
        weights = logits.softmax(-1)
        if self.masked:
            weights = weights.index_fill(-1, torch.tensor(sorted(self.masked), device=weights.device), 0)
            weights = weights / weights.sum(-1, keepdim=True)
        return Decision(everyone(weights).masked_fill(weights == 0, -1), weights, logits)


def build(seed: int = 0, experts: int = 3, masked: tuple[int, ...] = (), **sizes: Any) -> nn.Module:
    """Every block has its gate; `masked`: LoRAs that are left out at inference."""
    torch.manual_seed(seed)
    model = AdaptedLM("mole", **sizes)
    put_on(model, r"^layers\.\d+$", lambda base: MoLE(base, experts, model.context))
    for module in model.modules():
        if isinstance(module, MoLE):
            module.masked = frozenset(masked)
    return random_weights(model)
