"""What all mixtures of adapters share: one projection (or block) with a base, adapters beside it, and weights for them.

Rows of a record are tokens, sequences or whole batches (`Site.unit`); a weight counts for all tokens of its row.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ...routers.base import Edit, Emit, Record, Site, own_path
from ...routers.reading.router_call import RouterCall
from ...routers.reading.wrapped_method import after_method


class AdapterSite(RouterCall):
    """Subclass it: `find`, `read`, `write` (see RouterCall), `part` and `rest`."""

    name = "adapter_mixture"
    constant_output = True  # the base runs whatever is decided

    def part(self, site: Site, number: int, inputs: tuple[Any, ...]) -> Tensor:
        """(B, S, O) what one adapter adds for all tokens, without its weight."""
        raise NotImplementedError

    def rest(self, site: Site, inputs: tuple[Any, ...]) -> Tensor | float:
        """(B, S, O) what stands beside the adapters: the base."""
        return 0.0

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """Everything the block takes, as it is, and what it returns (first)."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            made = output[0] if isinstance(output, tuple) else output
            keep((*args, *kwargs.values()), made.detach())

        return [hooks.after(site.block, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """The base, and each adapter on all tokens, times the weight that their row gives it."""
        total: Any = self.rest(site, inputs)
        for number in record.experts[record.experts >= 0].unique().tolist():
            weight = record.weights.masked_fill(record.experts != number, 0).sum(-1)
            made = self.part(site, number, inputs)
            total = total + made * spread(site, weight, made)
        return torch.zeros_like(inputs[0]) if isinstance(total, float) else total


class Inline(AdapterSite):
    """Mixtures that decide in the middle of their forward: the rule is applied again to what they took, and to write another
    decision the block's output is made anew from it. Subclass it: `find`, `read`, `part`, `rest`."""

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """The decision that follows from what went in, or the one that was written instead."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            record = self.read(site, (*args, *kwargs.values()), output)
            made, decision = _written.get(site.block, (None, None))
            if made is not None and made() is output:
                record.decided = record.experts, record.weights
                record.experts, record.weights = decision
            emit(record)

        return [hooks.after(site.block, after, kwargs=True, first=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Another output, where the decision is another one."""

        def change(args: tuple[Any, ...], output: Any) -> Any:
            record = self.read(site, args, output)
            experts, weights = edit(record.experts, record.weights)
            if torch.equal(experts, record.experts) and torch.equal(weights, record.weights):
                return output
            made = self.recompute(site, args, replace(record, experts=experts, weights=weights)).to(output.dtype)
            made = made.reshape(output.shape)
            _written[site.block] = ref(made), (experts, weights)
            return made

        return [after_method(site.block, "forward", change, last=False)]


_written: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()


def spread(site: Site, weight: Tensor, like: Tensor) -> Tensor:
    """(R,) weights of rows → (B, S, 1) of tokens, by what a row is."""
    if site.unit == "token":
        return weight.reshape(*like.shape[:-1], 1)
    return weight.reshape(-1, *[1] * (like.dim() - 1))


def everyone(weights: Tensor) -> Tensor:
    """(R, E) expert numbers of a decision that weighs all of them."""
    return torch.arange(weights.shape[-1], device=weights.device).expand_as(weights)


def active(module: nn.Module, attribute: str) -> list[tuple[str, Any]]:
    """(adapter, its router) of PEFT's adapters that are at work in a module and whose routers are under `attribute`."""
    routers: Any = getattr(module, attribute, None)
    if not isinstance(routers, nn.ModuleDict) or getattr(module, "disable_adapters", False):
        return []
    at_work: Any = module.active_adapters
    return [(name, routers[name]) for name in at_work if name in routers]


def place_of(name: str) -> str:
    """ffn.up_proj, attention.q_proj, ...: by a projection's path; its own name where it stands in no layer."""
    parts = own_path(name).split(".")
    if not any(part.isdigit() for part in parts):
        return parts[-1]
    return f"{'attention' if re.search(r'attn|attention', name) else 'ffn'}.{parts[-1]}"
