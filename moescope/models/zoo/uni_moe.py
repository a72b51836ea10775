"""Uni-MoE 2 (Li and others 2025, github.com/HITsz-TMG/UMOE-Scaling-Unified-Multimodal-LLMs): as many experts as a token
needs.

Read from its `DCMoE/training/Models/UniMoEV2.py` (UniMoEV2MoESparseMoeBlock); the paper was not at hand. Of the dynamic
experts (real ones, then null ones that return nothing) a token takes the fewest whose softmax reaches `top_p`. Their weights
are its `allocation_expert`: each pick's softmax over the logits within 2 · jitter of the largest left, then normalized over
the picks. The fixed experts always run; chosen and fixed logits share one softmax, whose dynamic part is dealt out by those
weights. Padding takes fixed experts only. Left out: its token dropping (off by default there), jitter of the inputs while
training, and everything but text.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_diffusion import Expert
from ._parts_text import VOCABULARY, Block, Language, seeded, text_example

READS = "text"
_JITTER = 0.01


class DynamicRouter(nn.Module):
    """(T, H), real (T,) → experts and weights (T, D + F), -1 where fewer were needed, and logits (T, D + F)."""

    def __init__(self, hidden: int, dynamic: int, fixed: int, top_p: float) -> None:
        super().__init__()
        self.dynamic, self.fixed, self.top_p = dynamic, fixed, top_p
        self.linear = nn.Linear(hidden, dynamic + fixed, bias=False)
        nn.init.normal_(self.linear.weight, std=1.5 / hidden**0.5)

    def forward(self, rows: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In the order of picking; the fixed ones last."""
        logits = self.linear(rows)
        dynamic = logits[:, : self.dynamic]
        needed = (dynamic.softmax(-1).sort(-1, descending=True).values.cumsum(-1) < self.top_p).sum(-1) + 1
        picked, shares = allocation(dynamic)
        taken = (torch.arange(self.dynamic, device=rows.device) < needed[:, None]) & real[:, None]
        shares = shares * taken
        shares = shares / (shares.sum(-1, keepdim=True) + 1e-6)
        runs = torch.cat([torch.zeros_like(taken).scatter(1, picked, taken), taken.new_ones(len(rows), self.fixed)], 1)
        whole = logits.masked_fill(~runs, float("-inf")).softmax(-1)
        weights = torch.cat([shares * whole[:, : self.dynamic].sum(-1, keepdim=True), whole[:, self.dynamic :]], 1)
        last = torch.arange(self.dynamic, self.dynamic + self.fixed, device=rows.device).expand(len(rows), -1)
        return torch.cat([picked.masked_fill(~taken, -1), last], 1), weights, logits


def allocation(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(T, D) logits → all experts from the best on (T, D), and each pick's share (T, D) among those about as good."""
    left, picked, shares = scores, list[Tensor](), list[Tensor]()
    for _ in range(scores.shape[-1]):
        best, number = left.max(-1, keepdim=True)
        far = (best - scores) / scores.abs().clamp(min=best.abs()) > 2 * _JITTER
        shares.append(left.masked_fill(far, float("-inf")).softmax(-1).gather(-1, number))
        picked.append(number)
        left = left.scatter(-1, number, float("-inf"))
    return torch.cat(picked, -1), torch.cat(shares, -1)


class DynamicMoE(nn.Module):
    """Real experts by number, null ones that give nothing, and fixed ones, all weighed by the router."""

    def __init__(self, hidden: int, inner: int, experts: int, null: int, fixed: int, top_p: float) -> None:
        super().__init__()
        self.router, self.null_experts = DynamicRouter(hidden, experts + null, fixed, top_p), null
        self.experts = nn.ModuleList(Expert(hidden, inner) for _ in range(experts))
        self.fixed_experts = nn.ModuleList(Expert(hidden, inner) for _ in range(fixed))

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """(B, S, H), (B, S) → (B, S, H)."""
        rows = hidden.flatten(0, -2)
        experts, weights, _ = self.router(rows, real.flatten())
        made = torch.zeros_like(rows)
        first = len(self.experts) + self.null_experts
        for number, expert in (*enumerate(self.experts), *enumerate(self.fixed_experts, first)):
            token, slot = (experts == number).nonzero(as_tuple=True)
            made.index_add_(0, token, expert(rows[token]) * weights[token, slot, None])
        return made.view_as(hidden)


class Layer(Block):
    """A pre-norm block whose mixture is told what is padding."""

    def forward(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, S, H), (B, S) → (B, S, H)."""
        real = torch.ones_like(hidden[..., 0], dtype=torch.bool) if keep is None else keep
        hidden = hidden + self.attention(self.norm_attention(hidden), keep)
        return hidden + self.ffn(self.norm_ffn(hidden), real)


def build(seed: int = 0, *, hidden: int = 32, layers: int = 2, experts: int = 4, null: int = 2, fixed: int = 2,
          top_p: float = 0.7, heads: int = 4, vocabulary: int = VOCABULARY) -> Language:  # fmt: skip
    """A tiny one."""

    def make() -> Language:
        moe = (DynamicMoE(hidden, 2 * hidden, experts, null, fixed, top_p) for _ in range(layers))
        return Language([Layer(hidden, heads, m) for m in moe], hidden, vocabulary, "uni_moe")

    return seeded(make, seed)


def example(model: Language, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Ids of one forward, the last row padded on the left."""
    inputs = text_example(model.config.vocab_size, batch, places, seed)
    inputs["attention_mask"][-1, : places // 4] = 0
    return inputs
