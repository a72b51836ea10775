"""Experts as Megatron-Core calls them: on rows sorted by expert, with the rows' probabilities."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..adapters._parts_adapters import FeedForward


class Expert(FeedForward):
    """Weighs what it makes; has an extra state that is None, as Transformer Engine's layers do."""

    def forward(self, hidden: Tensor, probs: Tensor | None = None) -> tuple[Tensor, None]:  # type: ignore[override]
        """(n, H), (n,) → (n, H), and no bias."""
        inner = functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden)
        return self.down_proj(inner if probs is None else inner * probs[:, None]), None

    def get_extra_state(self) -> None:
        """Nothing."""

    def set_extra_state(self, state: Any) -> None:
        """Nothing."""


class SequentialMLP(nn.Module):
    """Experts on rows sorted by expert."""

    def __init__(self, experts: int, hidden: int, on_input: bool) -> None:
        super().__init__()
        self.on_input = on_input
        self.local_experts = nn.ModuleList(Expert(hidden, 48) for _ in range(experts))

    def forward(self, rows: Tensor, counts: Tensor, probs: Tensor) -> tuple[Tensor, None]:
        """(n, H), (E,), (n,) → (n, H), and no bias."""
        if self.on_input:
            rows, probs = rows * probs[:, None], torch.ones_like(probs)
        sizes = counts.tolist()
        made = [e(x, p)[0] for e, x, p in zip(self.local_experts, rows.split(sizes), probs.split(sizes))]
        return torch.cat(made), None
