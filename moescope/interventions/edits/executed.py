"""Edits of what is executed: the router's decision stands in its own logits, the experts run something else.

They all go through `contract.edit`, so they reach every contract, fused experts and shared ones included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...contracts import Edit as Rewrite
from ...contracts import Site
from ...decisions import ANY_K
from ...errors import InputError, ModelError
from .base import Edit, Undo
from .selection import check_experts, choices, rows, top_k


@dataclass(frozen=True, kw_only=True)
class Identity(Edit):
    """Executes what was decided: the proof that listening and writing change nothing."""

    mode: ClassVar[str] = "identity"

    def rewrite(self, site: Site) -> Rewrite:
        """(experts, weights) → what is executed at `site`."""
        return lambda experts, weights: (experts, weights)

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """A hook before the experts of each router."""
        return [h.remove for site in self.where(sites) for h in site.contract.edit(site, self.rewrite(site))]


@dataclass(frozen=True, kw_only=True)
class Zero(Identity):
    """The decision stands, the experts' contribution is removed: their weights become 0. Nothing is renormalized."""

    mode: ClassVar[str] = "zero"
    experts: Sequence[int]

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for an expert that is not there."""
        check_experts(self.where(sites), self.experts)

    def rewrite(self, site: Site) -> Rewrite:
        """Weights of the experts masked."""

        def zero(experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            hit = torch.isin(experts, torch.tensor(list(self.experts), device=experts.device, dtype=experts.dtype))
            where = rows(self.tokens, len(experts), experts)
            return experts, weights.masked_fill(hit if where is None else hit & where, 0)

        return zero


@dataclass(frozen=True, kw_only=True)
class Swap(Identity):
    """Where expert a was chosen b runs, with a's weight, and the other way round."""

    mode: ClassVar[str] = "swap"
    a: int
    b: int

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for an expert that is not there, ModelError where experts choose the tokens."""
        check_experts(self.where(sites), [self.a, self.b])
        token_choice(self, sites)

    def rewrite(self, site: Site) -> Rewrite:
        """a and b exchanged."""

        def swap(experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            new = torch.where(experts == self.a, self.b, torch.where(experts == self.b, self.a, experts))
            where = rows(self.tokens, len(experts), experts)
            return (new if where is None else torch.where(where, new, experts)), weights

        return swap


@dataclass(frozen=True, kw_only=True)
class Force(Identity):
    """These experts run for every token meant: each one that was not chosen takes the place of the least-weighted other one.

    A place keeps its weight, unless `weights` (one per expert, as many as k) says all. What the router itself would weigh them,
    had it nothing else to choose from, is RouteAround of all others.
    """

    mode: ClassVar[str] = "force"
    experts: Sequence[int]
    weights: Sequence[float] | None = None

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for experts that are not there or more than k, ModelError where experts choose the tokens."""
        here = self.where(sites)
        wanted = check_experts(here, self.experts)
        token_choice(self, sites)
        for site in here:
            k = top_k(site)
            if k is not None and (len(wanted) > k or (self.weights is not None and len(self.weights) != k)):
                raise InputError(f"router {site.path} runs {k} experts per token: force at most {k}, with {k} weights or none")

    def rewrite(self, site: Site) -> Rewrite:
        """Experts placed, least-weighted places first."""

        def force(experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            new, given = placed(experts, weights, list(self.experts)), weights
            if self.weights is not None:
                new = torch.tensor(list(self.experts), device=experts.device, dtype=experts.dtype).expand_as(experts)
                given = torch.tensor(list(self.weights), device=weights.device, dtype=weights.dtype).expand_as(weights)
            where = rows(self.tokens, len(experts), experts)
            return (new, given) if where is None else (torch.where(where, new, experts), torch.where(where, given, weights))

        return force


@dataclass(frozen=True, kw_only=True)
class RandomRouter(Identity):
    """k distinct experts drawn evenly for each token; the places keep their weights (V-MoE, arXiv 2106.05974, section 5)."""

    mode: ClassVar[str] = "random-router"
    seed: int = 0

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """ModelError where experts choose the tokens."""
        token_choice(self, sites)

    def rewrite(self, site: Site) -> Rewrite:
        """Draws from a generator of its own, so that equal seeds give equal runs."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw(experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            size = (len(experts), site.n_experts)
            new = torch.rand(size, generator=generator).argsort(-1)[:, : experts.shape[-1]].to(experts.device, experts.dtype)
            new = torch.where(experts < 0, experts, new)
            where = rows(self.tokens, len(experts), experts)
            return (new if where is None else torch.where(where, new, experts)), weights

        return draw


def placed(experts: Tensor, weights: Tensor, wanted: list[int]) -> Tensor:
    """(T, k) experts with every one of `wanted` among them; the least-weighted of the others give way."""
    new = experts.clone()
    for expert in wanted:
        free = torch.isin(new, torch.tensor(wanted, device=new.device, dtype=new.dtype))
        weakest = weights.float().masked_fill(free, float("inf")).argmin(-1, keepdim=True)
        missing = ~(new == expert).any(-1, keepdim=True)
        new = torch.where(missing, new.scatter(-1, weakest, expert), new)
    return new


def token_choice(edit: Edit, sites: Sequence[Site]) -> None:
    """ModelError where the routers meant do not let tokens choose."""
    for site in edit.where(sites):
        if site.kind in ANY_K:
            raise ModelError(
                f"router {site.path} is {site.kind.replace('_', ' ')}: its tokens do not choose experts, so '{edit.mode}' "
                "has no meaning there; use zero"
            )
        if choices(site) < 2:
            raise ModelError(f"router {site.path} has one expert, so there is nothing to put in its place; use zero")
