"""A routed layer that another program runs in memory of its own, as a module: it is called once with what that program did.

The program asks `told` before it goes on behind a router (`edited`) and whether experts' outputs are wanted (`watched`).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..hooks import Own
from .base import Edit


@dataclass
class Told(Own):
    """What is asked of the program: edits of the decision, in order; whether to hand over what experts gave."""

    edits: list[Edit] = field(default_factory=list)
    watched: int = 0

    def edited(self, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(T, k) what is to run instead of what was decided."""
        for edit in self.edits:
            experts, weights = edit(experts, weights)
        return experts, weights


@dataclass(frozen=True)
class Executed:
    """Of T rows: experts (T, k) that ran and their weights (T, k), the router's logits (T, E); `hidden` (T, d) what entered,
    `parts` (T, k, d) what each expert gave before it was weighed, where they are watched."""

    experts: Tensor
    weights: Tensor
    logits: Tensor
    hidden: Tensor | None = None
    parts: Tensor | None = None


def check_here(model: nn.Module, what: str) -> None:
    """InputError where another program runs the model's layers; `what` was to be done with them."""
    if any(isinstance(module, EngineBlock) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} is run by another program, whose experts and gradients are not at hand, so moescope "
            f"cannot {what}: trace it, and use the model of Transformers that it was made from for the rest"
        )


class EngineBlock(nn.Module):
    """One routed layer. `rule`: how experts follow from logits, as `Site.rule` has it; `weight`: the router's own matrix (E, d)
    where it is at hand."""

    def __init__(
        self, experts: int, top_k: int, score: str, rule: dict[str, Any], shared: int = 0, weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.n_experts, self.top_k, self.score, self.shared = experts, top_k, score, shared
        self.rule, self.told = rule, Told()
        self.ffn_gate_inp = nn.Module()
        if weight is not None:
            self.ffn_gate_inp.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, ran: Executed, output: Tensor | None) -> Tensor:
        """What came out (T, d), empty where it is not watched."""
        return torch.empty(0) if output is None else output
