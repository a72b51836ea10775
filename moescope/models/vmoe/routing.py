"""The decision of a V-MoE router, as plain tensors: what the experts then execute, and nothing else.

Shapes: G groups, S tokens in a group, E experts, k choices of a token, C places in an expert's buffer, P soft slots.
Token s of group g is token `g * S + s` of the forward, counted image by image, class token first.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Assignments(NamedTuple):
    """Executed assignments, A of them: flat token numbers (A,), experts (A,) and routing weights (A,)."""

    tokens: torch.Tensor
    experts: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Routing:
    """What every sparse router says.

    `logits` (G, S, E) are x @ W before noise, `noise` (G, S, E) what was added to them (None without noise), and
    `gates` (G, S, E) the softmax of their sum over experts. `capacity` is C: the places of one expert in one group.
    """

    logits: torch.Tensor
    gates: torch.Tensor
    noise: torch.Tensor | None
    capacity: int


@dataclass(frozen=True)
class TokenChoice(Routing):
    """Each token chose k experts, best first; an expert's buffer then had room for them or not.

    `indices` (G, S, k) int64 experts; `weights` (G, S, k) their gates, not renormalised; `slots` (G, S, k) int64 places
    in the expert's buffer, counted past its end too; `dropped` (G, S, k) bool, where the place is >= capacity.
    """

    indices: torch.Tensor
    weights: torch.Tensor
    slots: torch.Tensor
    dropped: torch.Tensor

    def assignments(self) -> Assignments:
        """Choices that were not dropped."""
        groups, size, _ = self.indices.shape
        kept = ~self.dropped
        numbers = torch.arange(groups * size, device=kept.device).view(groups, size, 1).expand_as(kept)
        return Assignments(numbers[kept], self.indices[kept], self.weights[kept])


@dataclass(frozen=True)
class ExpertChoice(Routing):
    """Each expert chose C tokens, best first, so a token has 0 to E experts.

    `tokens` (G, E, C) int64 numbers inside the group; `weights` (G, E, C) the gates there. The place in the buffer is
    the last axis.
    """

    tokens: torch.Tensor
    weights: torch.Tensor

    def assignments(self) -> Assignments:
        """Every place of every buffer."""
        groups, experts, _ = self.tokens.shape
        device, size = self.tokens.device, self.gates.shape[1]
        first = torch.arange(groups, device=device).view(groups, 1, 1) * size
        number = torch.arange(experts, device=device).view(1, experts, 1).expand_as(self.tokens)
        return Assignments((self.tokens + first).flatten(), number.flatten(), self.weights.flatten())


@dataclass(frozen=True)
class SoftSlots:
    """Nobody chooses: each of E x P slots reads a mix of all tokens, each token a mix of all slots.

    `logits`, `dispatch` and `combine` are (G, S, E, P); `dispatch` sums to 1 over S, `combine` to 1 over E and P.
    """

    logits: torch.Tensor
    dispatch: torch.Tensor
    combine: torch.Tensor
    noise: torch.Tensor | None

    @property
    def gates(self) -> torch.Tensor:
        """(G, S, E): how much of each token's output comes from each expert."""
        return self.combine.sum(-1)

    @property
    def capacity(self) -> int:
        """P, the slots of one expert."""
        return self.combine.shape[-1]


AnyRouting = TokenChoice | ExpertChoice | SoftSlots
