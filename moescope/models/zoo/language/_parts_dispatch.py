"""What mixtures with buffers are made of: a gate that gives every choice a place in an expert's buffer, and two einsums."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._parts_text import feed_forward


class Placed(NamedTuple):
    """What a gate decides for groups of tokens; dropped is what was chosen and has no place.

    dispatch, combine: (B, N, E, C), whether a token has a place in an expert's buffer, and its weight. logits: (B, N, E).
    chosen: (B, N, k) experts, -1 for padding. probabilities: (B, N, E).
    """

    dispatch: Tensor
    combine: Tensor
    logits: Tensor
    chosen: Tensor
    probabilities: Tensor


class BufferGate(nn.Module):
    """Top-k of a softmax; places are given to all first choices, then to all second ones, as long as there are any.

    `priority`: within a choice, tokens of large probability come first (batch priority routing), else those that stand first.
    `normalized`: weights are divided by their sum over the choices.
    """

    def __init__(self, hidden: int, count: int, top_k: int, factor: float, priority: bool, normalized: bool) -> None:
        super().__init__()
        self.num_gates, self.top_k, self.capacity_factor = count, top_k, factor
        self.priority, self.normalized = priority, normalized
        self.linear = nn.Linear(hidden, count, bias=False)

    def forward(self, hidden: Tensor, real: Tensor) -> Placed:
        """(B, N, H) groups of tokens, of which `real` (B, N) are no padding."""
        logits = self.linear(hidden)
        chances = logits.softmax(-1)
        best = chances.topk(self.top_k, -1)
        weights = best.values / best.values.sum(-1, keepdim=True) if self.normalized else best.values
        capacity = max(1, math.ceil(self.top_k * hidden.shape[1] * self.capacity_factor / self.num_gates))
        wanted = F.one_hot(best.indices, self.num_gates) * real[..., None, None]  # (B, N, k, E)
        places = self._places(wanted, best.values[..., 0].masked_fill(~real, -1))
        fits = wanted.bool() & (places < capacity)
        hot = F.one_hot(places.clamp(max=capacity - 1), capacity) * fits[..., None]
        dispatch = hot.sum(2).to(hidden.dtype)
        combine = (hot * weights[..., None, None]).sum(2)
        return Placed(dispatch, combine, logits, best.indices.masked_fill(~real[..., None], -1), chances)

    def _places(self, wanted: Tensor, first: Tensor) -> Tensor:
        """(B, N, k, E) how many wanted the expert before: choice by choice, within one in order or by `first` (B, N)."""
        order = (
            first.argsort(dim=1, descending=True, stable=True)
            if self.priority
            else torch.arange(first.shape[1]).expand_as(first)
        )
        order = order.to(first.device)
        sorted_ = wanted.gather(1, order[..., None, None].expand_as(wanted)).transpose(1, 2)  # (B, k, N, E)
        before = sorted_.flatten(1, 2).cumsum(1).view_as(sorted_) - sorted_
        back = order.argsort(dim=1)[..., None, None].expand_as(wanted)
        return before.transpose(1, 2).gather(1, back)


class Buffered(nn.Module):
    """Σ over experts of combine × expert(dispatch × x)."""

    def __init__(self, gate: BufferGate, hidden: int) -> None:
        super().__init__()
        self.gate = gate
        self.experts = nn.ModuleList(feed_forward(hidden) for _ in range(gate.num_gates))
        self.last: list[Placed] = []  # for the losses of this forward

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """(B, N, H) → (B, N, H)"""
        placed = self.gate(hidden, real)
        self.last[:] = [placed]
        entered = torch.einsum("bnh,bnec->ebch", hidden, placed.dispatch)
        made = torch.stack([expert(tokens) for expert, tokens in zip(self.experts, entered)])
        return torch.einsum("ebch,bnec->bnh", made, placed.combine)

    def said(self) -> Placed:
        """What the gate said in this forward; once."""
        return self.last.pop()


class BufferedBlock(nn.Module):
    """A Transformer block around it, with the residual: what has no place keeps what it was."""

    def __init__(self, attention: nn.Module, gate: BufferGate, hidden: int, together: bool) -> None:
        super().__init__()
        self.attention, self.mixture, self.together = attention, Buffered(gate, hidden), together
        self.norm_attention, self.norm_ffn = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    def forward(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H); `together`: the whole batch is one group, else each sequence is."""
        keep = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device) if keep is None else keep
        hidden = hidden + self.attention(self.norm_attention(hidden), keep)
        shape = (1, -1) if self.together else hidden.shape[:2]
        made = self.mixture(self.norm_ffn(hidden).reshape(*shape, hidden.shape[-1]), keep.reshape(shape))
        return hidden + made.view_as(hidden)
