"""Omni-SMoLA (Wu et al. 2023, arXiv 2312.00968): soft mixtures of low-rank experts beside a Linear, one for text, one for
images, one for both.

y = W x + S_both(X) + (S_text or S_image)(X), by what the token is. A soft mixture (Puigcerver et al. 2023):
slots take means of tokens, D = softmax over tokens of X̂ Φ̂, each low-rank expert one slot, tokens take means of slots, C =
softmax over slots (both normalized, Φ̂ scaled). From memory of paper and of Soft MoE; no published code was found. Here the
ids below `IMAGES` stand for patches of an image; padding is in no slot.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._parts_adapters import example_text, random_weights
from ._parts_mixtures import AdaptedLM, Context, Decision, LowRank, everyone, put_on

READS = "text"
IMAGES = 200
example = example_text


class Soft(nn.Module):
    """One soft mixture; which tokens it is for is `which`: text, image or both."""

    def __init__(self, into: int, out: int, experts: int, context: Context, which: str) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(LowRank(into, out) for _ in range(experts))
        self.phi, self.scale = nn.Parameter(torch.randn(into, experts)), nn.Parameter(torch.tensor(3.0))
        self.context, self.which = context, which
        self.mixture = {"experts": experts, "kind": "soft", "score": "softmax", "rule": {"tokens": which}}

    def route(self, hidden: Tensor) -> Decision:
        """Over the R tokens that it is for: (R, E) combine weights, and dispatch weights within each sequence."""
        mask = self.tokens()
        logits = self.scale * (functional.normalize(hidden, dim=-1) @ functional.normalize(self.phi, dim=0))
        dispatch = logits.masked_fill(~mask[..., None], float("-inf")).softmax(1).nan_to_num()
        rows = mask.flatten().nonzero()[:, 0]
        logits, dispatch = logits.flatten(0, 1)[rows], dispatch.flatten(0, 1)[rows]
        weights = logits.softmax(-1)
        return Decision(everyone(weights), weights, logits, dispatch, rows, rows // mask.shape[1])

    def tokens(self) -> Tensor:
        """(B, S) bool: what it is for."""
        context = self.context
        assert context.images is not None
        kinds = {"text": ~context.images, "image": context.images, "both": torch.ones_like(context.images)}
        return context.mask & kinds[self.which]

    def part(self, number: int, slot: Tensor) -> Tensor:
        """(B, I) → (B, O): one expert on its slot of every sequence."""
        return self.adapters[number](slot)  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> float:
        """Nothing stands beside."""
        return 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, I) → (B, S, O), zero where it is not for."""
        decision = self.route(hidden)
        assert decision.rows is not None
        assert decision.dispatch is not None
        flat, batch = hidden.flatten(0, 1), len(hidden)
        made = []
        for number in range(len(self.adapters)):
            share = flat[decision.rows] * decision.dispatch[:, number, None]
            slot = flat.new_zeros(batch, flat.shape[-1]).index_add(0, decision.pool, share)
            made.append(self.part(number, slot)[decision.pool] * decision.weights[:, number, None])
        total = torch.stack(made).sum(0)
        return total.new_zeros(len(flat), total.shape[-1]).index_add(0, decision.rows, total).unflatten(0, (batch, -1))


class OmniSMoLA(nn.Module):
    """A Linear and its three soft mixtures."""

    def __init__(self, base: nn.Linear, experts: int, context: Context) -> None:
        super().__init__()
        self.base_layer = base
        for which in ("text", "image", "both"):
            setattr(self, which, Soft(base.in_features, base.out_features, experts, context, which))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, O)"""
        return self.base_layer(hidden) + self.text(hidden) + self.image(hidden) + self.both(hidden)  # type: ignore[no-any-return]


class MultimodalLM(AdaptedLM):
    """Says which tokens are of an image."""

    def about(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """By the id."""
        super().about(input_ids, attention_mask)
        self.context.images = input_ids < IMAGES


def build(seed: int = 0, experts: int = 4, **sizes: Any) -> nn.Module:
    """Mixtures at `up_proj` and `down_proj`."""
    torch.manual_seed(seed)
    model = MultimodalLM("omni_smola", **sizes)
    put_on(model, r"mlp\.(up|down)_proj$", lambda base: OmniSMoLA(base, experts, model.context))
    for name, module in model.named_modules():
        if isinstance(module, Soft):
            module.mixture["place"] = "ffn." + ".".join(name.split(".")[-2:])
    return random_weights(model)
