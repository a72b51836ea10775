"""Layers that somebody wrote by hand, for refusals and for the plug-in door."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """Logits of every expert, nothing decided."""

    def __init__(self, hidden: int, experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        """(T, E)"""
        return hidden @ self.weight.T


class Stacked(nn.Module):
    """Experts in one stack; `wrong` makes each expert's share depend on the others', which no contract describes."""

    def __init__(self, hidden: int, experts: int, wrong: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, hidden, hidden) / hidden)
        self.wrong = wrong

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Σ w · W_e x"""
        if self.wrong:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9) * 0.5
        made = torch.einsum("tkhi,ti->tkh", self.weight[index.long()], hidden)
        return (made * weights[..., None]).sum(1)


class Layer(nn.Module):
    """A gate and stacked experts; `form` is how experts are told."""

    def __init__(self, hidden: int = 8, experts: int = 4, wrong: bool = False, form: str = "indices") -> None:
        super().__init__()
        self.router, self.experts, self.form = Gate(hidden, experts), Stacked(hidden, experts, wrong), form

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, H)"""
        flat = hidden.flatten(0, 1)
        weights, index = torch.softmax(self.router(flat), -1).topk(2, -1)
        index = index.to(flat.dtype) if self.form == "floats" else index
        return self.experts(flat, index, weights).view_as(hidden)


class ByHand(nn.Module):
    """A common layer of one's own: a Linear gate and a list of experts, each called on the tokens that chose it."""

    def __init__(self, hidden: int = 8, experts: int = 4) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(experts))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, H)"""
        flat = hidden.flatten(0, 1)
        weights, index = self.route(self.gate(flat))
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, slot = (index == number).nonzero(as_tuple=True)
            out.index_add_(0, token, expert(flat[token]) * weights[token, slot, None])
        return out.view_as(hidden)

    def route(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(T, 2) weights and experts."""
        return torch.softmax(logits, -1).topk(2, -1)


class Model(nn.Module):
    """Embeddings, the layer twice, nothing else."""

    def __init__(self, make: type[nn.Module], **settings: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(model_type="handwritten", vocab_size=17)
        self.embed = nn.Embedding(17, 8)
        self.layers = nn.ModuleList(make(**settings) for _ in range(2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, S) → (B, S, 8)"""
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return hidden
