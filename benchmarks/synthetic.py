"""A model that does nothing but route: ready-made decisions through the real hooks, to measure the tracer alone."""

import torch
from torch import Tensor, nn

from benchmarks.measure import device


class Router(nn.Module):
    """Hands out one of a few prepared (logits, weights, indices), as Transformers 5 routers do."""

    def __init__(self, experts: int, top_k: int, tokens: int, dtype: torch.dtype, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        bias = torch.randn(experts, generator=random)
        self.prepared = [
            self._decide(torch.randn(tokens, experts, generator=random) * 1.5 + bias, top_k, dtype) for _ in range(4)
        ]
        self.calls = 0

    @staticmethod
    def _decide(logits: Tensor, top_k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        logits = logits.to(dtype)
        weights, indices = torch.softmax(logits.float(), -1).topk(top_k, -1)
        return tuple(t.to(device()) for t in (logits, (weights / weights.sum(-1, keepdim=True)).to(dtype), indices))  # type: ignore[return-value]

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next prepared decision, for the first rows when there are fewer."""
        whole = len(hidden) == len(self.prepared[0][0])
        self.calls += whole  # what the proof asks for is always the same
        if not whole:
            return tuple(t[: len(hidden)] for t in self.prepared[0])  # type: ignore[return-value]
        return tuple(t[: len(hidden)] for t in self.prepared[self.calls % len(self.prepared)])  # type: ignore[return-value]


class Experts(nn.Module):
    """Linear in the weights, so that the proof can recompute it, and next to free."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(experts, 1, 1, device=device()))

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """(T, 1) times the sum of its weights."""
        return hidden * top_k_weights.sum(-1, keepdim=True)


class Block(nn.Module):
    """Router and experts."""

    def __init__(self, experts: int, *router: object) -> None:
        super().__init__()
        self.gate, self.experts = Router(experts, *router), Experts(experts)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> Tensor:
        """Route."""
        _, weights, indices = self.gate(hidden)
        return self.experts(hidden, indices, weights)


class RoutingOnly(nn.Module):
    """`layers` routed blocks over (batch, places) ids."""

    def __init__(self, layers: int, experts: int, top_k: int, tokens: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(experts, top_k, tokens, dtype, seed) for seed in range(layers)])

    def forward(self, input_ids: Tensor) -> Tensor:
        """(batch · places, 1)."""
        first = self.layers[0].gate.prepared[0][0]
        hidden = torch.ones(input_ids.numel(), 1, dtype=first.dtype, device=first.device)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden
