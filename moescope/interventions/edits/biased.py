"""Edits by degrees: an expert's router logit with something added, or its weight times something."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...contracts import Edit as Rewrite
from ...contracts import Site
from ...errors import InputError
from .base import Edit, Undo, patched
from .choice import decider
from .executed import Identity
from .masking import under
from .selection import check_experts, choices, rows


@dataclass(frozen=True, kw_only=True)
class Bias(Edit):
    """`added` (nats, by expert) to the router's logits, before anything is made of them: choice and weights follow.

    The family's own softmax or sigmoid, correction bias, groups and renormalization hold. Stored logits are those with it.
    """

    mode: ClassVar[str] = "bias"
    added: Mapping[int, float]

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for experts that are not there, and for no finite number."""
        check_experts(self.where(sites), self.added)
        _finite(self.added.values(), "a bias")

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """The router's forward with other logits. ModelError, when it runs, where these come from no linear layer."""
        return [patched(*_scorer(site), self._around(site)) for site in self.where(sites)]

    def _around(self, site: Site) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        added = torch.zeros(choices(site))
        for expert, value in self.added.items():
            added[expert] = value
        why = "nothing can be added to its logits; weigh or force its experts"
        return lambda old: under(site, lambda: _Added(added), old, why, "make its logits by a linear layer")


@dataclass(frozen=True, kw_only=True)
class Weigh(Identity):
    """The decision stands, weights of experts are multiplied by `factors` (by expert). Nothing is renormalized."""

    mode: ClassVar[str] = "weigh"
    factors: Mapping[int, float] = field(default_factory=dict)

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for experts that are not there, and for no finite number."""
        check_experts(self.where(sites), self.factors)
        _finite(self.factors.values(), "a factor")

    def rewrite(self, site: Site) -> Rewrite:
        """Weights multiplied."""

        def weigh(experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            times = torch.ones_like(weights)
            for expert, factor in self.factors.items():
                times = torch.where(experts == expert, torch.as_tensor(factor, dtype=times.dtype, device=times.device), times)
            where = rows(self.tokens, len(experts), experts)
            return experts, weights * (times if where is None else torch.where(where, times, torch.ones_like(times)))

        return weigh


class _Added(TorchFunctionMode):
    """`added` (E,) to whatever a linear layer gives of so many columns."""

    def __init__(self, added: Tensor) -> None:
        super().__init__()
        self.added, self.hits = added, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not torch.nn.functional.linear or out.shape[-1] != len(self.added):
            return out
        self.hits += 1
        return out + self.added.to(out.device, out.dtype)


def _scorer(site: Site) -> tuple[Any, str]:
    """The module that makes the logits: the router where it is one of its own, else what chooses."""
    return decider(site) if site.router is None else (site.router, "forward")


def _finite(values: Any, what: str) -> None:
    if bad := [v for v in values if not isfinite(v)]:
        raise InputError(f"{what} of {bad[0]} is no finite number: give one such as 1.5")
