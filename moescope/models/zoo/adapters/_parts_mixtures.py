"""What the adapter mixtures are made of: low-rank adapters, the decision they are weighed by, and putting them on a model."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._parts_adapters import CausalLM, FeedForward, Output


class Decision(NamedTuple):
    """(R, k) experts and weights of rows that are tokens, sequences or the batch; (R, E) logits. Soft: see Omni-SMoLA."""

    experts: Tensor
    weights: Tensor
    logits: Tensor | None = None
    dispatch: Tensor | None = None
    rows: Tensor | None = None
    pool: Tensor | None = None


class Context:
    """What a forward is about, beside its tokens: filled by the model, read by its mixtures."""

    mask: Tensor  # (B, S) bool, tokens
    tasks: Tensor | None = None  # (B,)
    clusters: Tensor | None = None  # (B,)
    images: Tensor | None = None  # (B, S) bool


class LowRank(nn.Module):
    """B A x, times `scale`: what LoRA adds to a projection, or a projection of its own."""

    def __init__(self, into: int, out: int, rank: int = 4, scale: float = 1.0) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(into, rank, bias=False), nn.Linear(rank, out, bias=False), scale

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., I) → (..., O)"""
        return self.b(self.a(hidden)) * self.scale  # type: ignore[no-any-return]


class Mixture(nn.Module):
    """A base and adapters beside it. Subclass it: `mixture` and `route`; `part` and `rest` where adapters add up otherwise."""

    mixture: dict[str, Any]

    def route(self, *inputs: Any) -> Decision:
        """What is to be executed."""
        raise NotImplementedError

    def part(self, number: int, *inputs: Any) -> Tensor:
        """One adapter on all tokens."""
        adapters: Any = self.adapters
        return adapters[number](*inputs)  # type: ignore[no-any-return]

    def rest(self, *inputs: Any) -> Tensor | float:
        """The base."""
        base: Any = self.base_layer
        return base(*inputs)  # type: ignore[no-any-return]

    def forward(self, *inputs: Any) -> Tensor:
        """rest + Σ weight · part, by rows."""
        decision = self.route(*inputs)
        out: Any = self.rest(*inputs)
        for number in range(self.mixture["experts"] + len(self.mixture.get("roles", {}))):
            chosen = decision.weights.masked_fill(decision.experts != number, 0).sum(-1)
            if bool(chosen.any()):
                made = self.part(number, *inputs)
                out = out + made * by_token(chosen, made, self.mixture.get("unit", "token"))
        return out if torch.is_tensor(out) else self.part(0, *inputs) * 0


class LoraMixture(Mixture):
    """Low-rank adapters beside a Linear."""

    def __init__(self, base: nn.Linear, experts: int, context: Context, rank: int = 4) -> None:
        super().__init__()
        self.base_layer, self.context = base, context
        self.adapters = nn.ModuleList(LowRank(base.in_features, base.out_features, rank) for _ in range(experts))


def by_token(weight: Tensor, like: Tensor, unit: str) -> Tensor:
    """(R,) → (B, S, 1) or what broadcasts to it."""
    return weight.reshape(*like.shape[:-1], 1) if unit == "token" else weight.reshape(-1, *[1] * (like.dim() - 1))


def everyone(weights: Tensor) -> Tensor:
    """(R, E) all experts' numbers."""
    return torch.arange(weights.shape[-1], device=weights.device).expand_as(weights)


class AdaptedLM(CausalLM):
    """A causal language model that tells its mixtures what a forward is about."""

    def __init__(self, name: str, hidden: int = 32, layers: int = 2, vocabulary: int = 512) -> None:
        super().__init__(name, layers, hidden, vocabulary, lambda _: FeedForward(hidden, 48))
        self.context = Context()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Output:
        """As CausalLM's."""
        self.about(input_ids, attention_mask)
        return super().forward(input_ids, attention_mask, labels)

    def about(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """Fill in the context."""
        whole = torch.ones_like(input_ids, dtype=torch.bool)
        self.context.mask = whole if attention_mask is None else attention_mask.bool()


def put_on(model: nn.Module, where: str, make: Callable[[Any], nn.Module]) -> None:
    """Put `make(module)` in place of every module whose path matches."""
    for name, module in [(n, m) for n, m in model.named_modules() if re.search(where, n)]:
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, make(module))
