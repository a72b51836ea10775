"""The three routers of the authors' code, without their ensembles (vmoe/nn/routing.py, projects/soft_moe/router.py)."""

from typing import TypeAlias

import torch
from torch import nn

from ...errors import InputError
from .buffers import best_first, buffer_places, expert_capacity
from .config import MoeConfig, RouterConfig
from .initial import lecun_normal_
from .routing import ExpertChoice, SoftSlots, TokenChoice

Noise: TypeAlias = torch.Tensor | torch.Generator | None


class Router(nn.Module):
    """Settings that may be switched while the model lives, and noise."""

    def __init__(self, config: RouterConfig, experts: int) -> None:
        """`experts` is E."""
        super().__init__()
        self.config, self.num_experts = config, experts

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each logit: the config's, divided by E."""
        return self.config.noise_std / self.num_experts

    def draw(self, logits: torch.Tensor, noise: Noise) -> torch.Tensor | None:
        """Noise shaped like the logits, or None: as given, else drawn if the router is not deterministic.

        A tensor is added as it is (already scaled), also in evaluation. A generator seeds the draw. Without `deterministic` in
        the config, routers are deterministic in evaluation.
        """
        if isinstance(noise, torch.Tensor):
            if noise.shape != logits.shape:
                raise InputError(f"noise is {tuple(noise.shape)}, but the router logits are {tuple(logits.shape)}.")
            return noise.to(logits)
        quiet = not self.training if self.config.deterministic is None else self.config.deterministic
        if quiet or self.noise_std == 0:
            return None
        return self.noise_std * torch.randn(logits.shape, generator=noise, dtype=logits.dtype, device=logits.device)


class SparseRouter(Router):
    """Logits x @ W without bias, and their softmax over experts."""

    def __init__(self, config: RouterConfig, hidden: int, experts: int) -> None:
        """`weight` is (E, hidden), the transpose of flax's kernel."""
        super().__init__(config, experts)
        self.weight = nn.Parameter(lecun_normal_(torch.empty(experts, hidden), fan_in=hidden))

    def score(self, tokens: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Clean logits, gates of the noisy logits, and the noise, each (G, S, E), from tokens (G, S, hidden)."""
        logits = nn.functional.linear(tokens, self.weight)
        drawn = self.draw(logits, noise)
        gates = torch.softmax(logits if drawn is None else logits + drawn, dim=-1)
        return logits, gates, drawn

    def places(self, choices: int) -> int:
        """C for this many choices in a group."""
        options = self.config.dispatcher
        if options.capacity:
            return options.capacity
        if options.capacity_factor is None:
            raise InputError("the dispatcher has neither capacity nor capacity_factor: give one of them.")
        rounding = options.capacity_ceil_or_round, options.capacity_multiple_of
        return expert_capacity(choices, self.num_experts, options.capacity_factor, *rounding)


class TokenChoiceRouter(SparseRouter):
    """Every token takes its k largest gates; weights are those gates, never renormalised."""

    def forward(self, tokens: torch.Tensor, noise: Noise = None) -> TokenChoice:
        """Decide for tokens (G, S, hidden)."""
        k = self.config.num_selected_experts
        if not 1 <= k <= self.num_experts:
            raise InputError(f"num_selected_experts is {k}: it must be from 1 to {self.num_experts}, the experts.")
        logits, gates, drawn = self.score(tokens, noise)
        weights, indices = best_first(gates, k)
        priority = weights[..., 0] if self.config.dispatcher.batch_priority else None
        slots = buffer_places(indices, priority, self.num_experts)
        capacity = self.places(tokens.shape[1] * k)
        return TokenChoice(logits, gates, drawn, capacity, indices, weights, slots, slots >= capacity)


class ExpertChoiceRouter(SparseRouter):
    """Every expert takes the C tokens that give it the largest gates."""

    def forward(self, tokens: torch.Tensor, noise: Noise = None) -> ExpertChoice:
        """Decide for tokens (G, S, hidden)."""
        capacity = self.places(tokens.shape[1])
        if capacity > tokens.shape[1]:
            raise InputError(f"each expert would choose {capacity} of {tokens.shape[1]} tokens: lower capacity_factor.")
        logits, gates, drawn = self.score(tokens, noise)
        weights, chosen = best_first(gates.transpose(1, 2), capacity)
        return ExpertChoice(logits, gates, drawn, capacity, chosen, weights)


class SoftRouter(Router):
    """Soft MoE: cosine of token and slot, times a learned scale, softmaxed over tokens and over slots."""

    def __init__(self, config: RouterConfig, hidden: int, experts: int, slots: int) -> None:
        """`mu` is (hidden, E, P) and `scale` a scalar."""
        super().__init__(config, experts)
        self.mu = nn.Parameter(lecun_normal_(torch.empty(hidden, experts, slots), fan_in=hidden * experts))
        self.scale = nn.Parameter(torch.ones(()))

    @property
    def noise_std(self) -> float:
        """The config's own: this router does not divide it by E."""
        return self.config.noise_std

    def forward(self, tokens: torch.Tensor, noise: Noise = None) -> SoftSlots:
        """Mix tokens (G, S, hidden); the smaller of the two arrays is scaled, as the authors do."""
        unit, mu = _unit(tokens, -1), _unit(self.mu, 0)
        if unit.numel() < mu.numel():
            unit = unit * self.scale
        else:
            mu = mu * self.scale
        logits = torch.einsum("gsh,hep->gsep", unit, mu)
        drawn = self.draw(logits, noise)
        noisy = logits if drawn is None else logits + drawn
        combine = noisy.flatten(2).softmax(-1).view_as(noisy)
        return SoftSlots(logits, noisy.softmax(1), combine, drawn)


def build_router(moe: MoeConfig, hidden: int, group_size: int | None) -> Router:
    """The router that the config names; soft slots are counted from the group where the config does not say."""
    config, experts = moe.router, moe.num_experts
    if config.kind == "token_choice":
        return TokenChoiceRouter(config, hidden, experts)
    if config.kind == "expert_choice":
        return ExpertChoiceRouter(config, hidden, experts)
    return SoftRouter(config, hidden, experts, config.num_slots or _soft_slots(config, experts, group_size))


def _soft_slots(config: RouterConfig, experts: int, group_size: int | None) -> int:
    if group_size is None:
        raise InputError("SoftRouter has no num_slots and the group size is not known: give num_slots.")
    factor = 1.0 if config.capacity_factor is None else config.capacity_factor
    return expert_capacity(group_size, experts, factor, "round", 1)


def _unit(x: torch.Tensor, dim: int) -> torch.Tensor:
    return x * torch.rsqrt(x.square().sum(dim, keepdim=True) + 1e-6)
