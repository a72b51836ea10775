"""Edits of the choice itself: experts that cannot be chosen, another number of them, another capacity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ...contracts import Site
from ...errors import InputError, ModelError
from ...routers.calls import bare
from .base import Edit, Undo, patched
from .masking import LOGIT_MASKED, Count, Masked, ProductKeys, mask_of, under
from .selection import check_experts, check_left, choices, top_k

_CAPACITY = ("capacity", "capacity_factor", "batch_priority")


@dataclass(frozen=True, kw_only=True)
class RouteAround(Edit):
    """The experts cannot be chosen, the next best are, weighed as the family weighs: its bias, groups, renormalization hold.

    An expert that is gone does not count for its group either. `mask`, (T, experts) bool, says it per token place instead.
    """

    mode: ClassVar[str] = "route-around"
    experts: Sequence[int] = ()
    mask: Tensor | None = None

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for experts that are not there or too few left, ModelError where there is no next best."""
        here = self.where(sites)
        for site in here:
            if self.mask is None:
                check_left(site, check_experts([site], self.experts))
            elif self.mask.shape[-1] != choices(site):
                raise InputError(
                    f"the mask has {self.mask.shape[-1]} columns, but router {site.path} chooses among {choices(site)}"
                )
            if reason := no_next(site):
                raise ModelError(f"router {site.path} {reason}")

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """The router's forward under a mask, and a check that nobody masked is executed."""
        return [undo for site in self.where(sites) for undo in self._site(site)]

    def _site(self, site: Site) -> list[Undo]:
        mask = self.mask if self.mask is not None else mask_of(site, list(self.experts), self.tokens)
        mode = ProductKeys if site.contract.product_keys else Masked
        logits = type(site.router).__name__ in LOGIT_MASKED

        def make(old: Callable[..., Any]) -> Callable[..., Any]:
            return under(site, lambda: mode(mask, logits), old, "there is no next best to take; use zero")

        guard = site.contract.edit(site, _guard(site, mask))
        return [h.remove for h in guard] + [patched(*decider(site), make)]


@dataclass(frozen=True, kw_only=True)
class TopK(Edit):
    """`k` experts per token instead of the model's own number, weighed as the family weighs them."""

    mode: ClassVar[str] = "top-k"
    k: int

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for a k out of range, ModelError where the number is fixed."""
        for site in self.where(sites):
            if not 1 <= self.k <= choices(site):
                raise InputError(f"k is {self.k}, but router {site.path} has {choices(site)} experts: choose from 1 to that")
            if reason := _fixed_k(site, self.k):
                raise ModelError(f"router {site.path} {reason}")

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """The router's forward with another k, and its attribute for whoever reads it."""
        return [undo for site in self.where(sites) for undo in self._site(site)]

    def _site(self, site: Site) -> list[Undo]:
        if site.contract.configured:
            return _switched(site, num_selected_experts=self.k)
        old = top_k(site) or 0
        holders = [m for m in map(bare, filter(None, (site.router, site.block))) if isinstance(getattr(m, "top_k", None), int)]
        undo = [_set(holder, "top_k", self.k) for holder in holders]

        def make(forward: Callable[..., Any]) -> Callable[..., Any]:
            return under(site, lambda: Count(choices(site), old, self.k), forward, "its number of experts is not a topk's")

        return [*undo, patched(*decider(site), make)]


@dataclass(frozen=True, kw_only=True)
class Capacity(Edit):
    """Other places per expert: `capacity` (Switch, V-MoE), or `capacity_factor` and `batch_priority` (V-MoE)."""

    mode: ClassVar[str] = "capacity"
    capacity: int | None = None
    capacity_factor: float | None = None
    batch_priority: bool | None = None

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError for a setting that is none, ModelError where the router has no such capacity."""
        settings = self._settings()
        if not settings or (self.capacity is not None and self.capacity < 1):
            raise InputError("give at least one of capacity (1 or more places), capacity_factor, batch_priority")
        for site in self.where(sites):
            if site.contract.configured:
                _vmoe_config(site, settings)
            elif set(settings) != {"capacity"} or not isinstance(getattr(site.router, "expert_capacity", None), int):
                raise ModelError(
                    f"router {site.path} ({site.contract.name}) has no {', '.join(settings)} to change: V-MoE has all three, "
                    "Switch a capacity, other families run every choice"
                )
            elif type(site.router).__name__ == "NllbMoeTop2Router":
                raise ModelError(f"router {site.path} works its capacity out anew in every forward, so it cannot be set")

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """The router's own setting, for as long as the block lasts."""
        undo: list[Undo] = []
        for site in self.where(sites):
            if site.contract.configured:
                undo += _switched(site, **self._settings())
            else:
                undo.append(_set(site.router, "expert_capacity", self.capacity))
        return undo

    def _settings(self) -> dict[str, Any]:
        return {name: value for name in _CAPACITY if (value := getattr(self, name)) is not None}


def decider(site: Site) -> tuple[Any, str]:
    """The object and the method that choose: the block's own method where the block decides, else the router's forward."""
    if hasattr(site.block, "route_tokens_to_experts"):
        return site.block, "route_tokens_to_experts"
    if site.contract.product_keys or site.router is None:
        return site.block, "forward"
    return site.router, "forward"


def no_next(site: Site) -> str | None:
    """Why a router has no next best expert to take, if it has none."""
    if site.kind == "hash":
        return "looks its experts up in a table over vocabulary ids, so there is no next best; use zero, swap or force"
    if site.kind == "global":
        return "lets all tokens and experts compete at once, so there is no next best expert; use zero"
    if site.kind == "sampled":
        return "weighs all its components and lets one act, so there is no next best; use zero"
    if site.kind == "expert_choice":
        return "lets experts choose tokens, so there is no next best expert; use zero"
    if site.kind == "soft":
        return "mixes all its experts for every token, so there is no next best; use zero"
    if site.kind == "static":
        return "is told its expert by the caller, so there is nothing to route around; use zero"
    if not site.executes_decision:
        return "decides what this Transformers does not execute (experts 0 and 1 run whatever it says); use zero"
    return None


def _fixed_k(site: Site, k: int) -> str | None:
    if site.kind in ("hash", "static", "expert_choice", "global", "sampled", "soft"):
        return f"is of kind {site.kind}: there is no number of experts per token to change"
    if type(site.router).__name__ in ("SwitchTransformersTop1Router", "NllbMoeTop2Router", "PhimoeTopKRouter"):
        return "has its number of experts per token written into its code, so it cannot be changed"
    if site.contract.product_keys or site.block_type.startswith("attention"):
        return "uses its number of experts outside the choice too, so it cannot be changed"
    if k == 1 and "identity" in site.roles.values():
        return "hands its experts k choices that it squeezes, which fails for k = 1; choose 2 or more"
    return None


def _guard(site: Site, mask: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Raises if an expert that must not be chosen is executed with a weight: a refusal instead of a wrong number."""

    def guard(experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        here = mask.to(experts.device)
        at = experts.clamp(0, here.shape[-1] - 1).long()
        bad = here[at] if here.dim() == 1 else here.gather(-1, at)
        if bool((bad & (experts >= 0) & (weights != 0)).any()):
            raise ModelError(
                f"router {site.path} chose an expert that is masked: too few were left in the groups it may choose from"
            )
        return experts, weights

    return guard


def _vmoe_config(site: Site, settings: dict[str, Any]) -> Any:
    """The router's configuration with other settings. InputError for one that its kind of router lacks."""
    from dataclasses import replace

    from ...models.vmoe.switching import SWITCHES

    router: Any = site.router
    if unknown := sorted(set(settings) - SWITCHES[router.config.kind]):
        can = ", ".join(sorted(SWITCHES[router.config.kind]))
        raise InputError(f"{router.config.kind} routing has no {', '.join(unknown)}: it has {can}")
    options = dict(settings)
    for name, other in (("capacity", "capacity_factor"), ("capacity_factor", "capacity")):
        if name in options:
            options.setdefault(other, None)
    own = {name: options.pop(name) for name in ("num_selected_experts",) if name in options}
    return replace(router.config, **own, dispatcher=replace(router.config.dispatcher, **options))


def _set(holder: Any, name: str, value: Any) -> Undo:
    old = getattr(holder, name)
    setattr(holder, name, value)
    return lambda: setattr(holder, name, old)


def _switched(site: Site, **settings: Any) -> list[Undo]:
    router: Any = site.router
    old = router.config
    router.config = _vmoe_config(site, settings)
    return [lambda: setattr(router, "config", old)]
