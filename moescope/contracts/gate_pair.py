"""A gate, or the block's method `route`, returns expert numbers and weights of one shape, in any order and among other
things; the block calls its `experts` by number (DiT-MoE, HiDream, Diff-MoE, Uni-MoE, Switch-DiT, litgpt, torchtitan).

A block may say more of itself by attributes, none of which it must have: `decides_by = "route"` (its own method, not its
gate, decides), `kind`, `unit` and `expert_names` (of `Site`), `whole = True` (an expert takes and gives a whole input, not
rows of it), `null_experts` (how many numbers behind the experts run nothing), `fixed_experts` (a ModuleList whose numbers
come next, weighed by the gate and always chosen), `alongside(*args)` (rows that its experts take beside the tokens: a
timestep), `beside(hidden, *alongside)` (what it adds).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..errors import UnknownContract
from ..routers.base import Record, Site
from ..routers.calls import bare
from ..routers.expert_sum import expert_sum
from ..routers.reading.experts_call import child_router, expert_count, flat, parameters
from ..routers.reading.router_call import RouterCall

_SHARED = ("shared_experts", "shared_expert")


class GatePair(RouterCall):
    """(integers, floats, ...) from the gate; experts are modules in a list, or one module that takes rows and numbers."""

    name = "gate_pair"
    general = True
    constant_output = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a gate that decides itself, or a method that is said to, stands beside experts."""
        experts = experts_of(module)
        if experts is None:
            return
        router = child_router(module)
        if getattr(module, "decides_by", None) == "route":
            yield self.site(name, module, None, experts, _by_method)
        elif router is not None and not isinstance(bare(router), nn.Linear):
            yield self.site(name, module, router, experts, self)

    def site(self, name: str, block: Any, router: nn.Module | None, experts: nn.Module, contract: "GatePair") -> Site:
        """What a block says of itself."""
        count = len(experts) if isinstance(experts, nn.ModuleList) else expert_count(router or block, experts)
        nulls, fixed = getattr(block, "null_experts", 0), getattr(block, "fixed_experts", ())
        roles = {count + n: "null" if n < nulls else "shared" for n in range(nulls + len(fixed))}
        stream = re.search(r"(?:^|\.)(double|single)_", name)
        return Site(
            name, block, router, experts, contract, count, getattr(block, "kind", "token_choice"), roles=roles,
            unit=getattr(block, "unit", "token"), place=f"{stream[1]}.ffn" if stream else "",
            shared=len(fixed) or None,
            expert_names=getattr(block, "expert_names", {}),
        )  # fmt: skip

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """Numbers and weights (T, k); logits from what else has a column for each expert, or by the gate's own matrix."""
        found = [*output] if isinstance(output, tuple | list) else [output]
        whole, part = places(site, found)
        experts, weights = (found[i].reshape(-1, found[i].shape[-1]) for i in (whole, part))
        return Record(site, experts.long(), weights, self._logits(site, args, found, {whole, part}, len(experts)))

    def _logits(self, site: Site, args: tuple[Any, ...], found: list[Any], taken: set[int], rows: int) -> Tensor | None:
        width = site.n_experts + site.special_experts
        for number, value in enumerate(found):
            if number not in taken and torch.is_tensor(value) and value.is_floating_point() and value.shape[-1:] == (width,):
                return flat(value) if value.numel() == rows * width else None
        gate: Any = site.router
        weight: Any = getattr(gate, "weight", None)
        if getattr(gate, "scoring_func", None) != "softmax" or weight is None or len(weight) != site.n_experts:
            return None
        return nn.functional.linear(args[0].reshape(-1, args[0].shape[-1]), weight)  # MoEGate keeps them to itself

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """The same with other numbers and weights; an empty place is expert 0 with weight 0 where the gate has none itself."""
        found = [*output]
        whole, part = places(site, found)
        if not bool((found[whole] < 0).any()):
            experts, weights = experts.clamp(min=0), weights.masked_fill(experts < 0, 0)
        found[whole] = experts.to(found[whole].dtype).reshape(found[whole].shape)
        found[part] = weights.to(found[part].dtype).reshape(found[part].shape)
        return tuple(found)

    def expert(self, site: Site, number: int, hidden: Tensor, *alongside: Tensor) -> Tensor:
        """By number: a module of the list, one of the fixed ones, or the module that takes rows and numbers."""
        block: Any = site.block
        if number >= site.n_experts:
            return block.fixed_experts[number - site.n_experts - getattr(block, "null_experts", 0)].forward(hidden, *alongside)
        experts: Any = site.experts
        if isinstance(experts, nn.ModuleList):
            return experts[number].forward(hidden, *alongside)
        counts = torch.bincount(torch.tensor([number]), minlength=site.n_experts).to(hidden.device) * len(hidden)
        numbers = torch.full((len(hidden), 1), number, device=hidden.device)
        return experts.forward(hidden, torch.ones_like(numbers, dtype=hidden.dtype), numbers, counts)

    def beside(self, site: Site, hidden: Tensor, *alongside: Tensor) -> Tensor | float:
        """What the block says it adds, else what its shared experts make."""
        if hasattr(site.block, "beside"):
            return site.block.beside(hidden, *alongside)  # type: ignore[operator]
        shared: Any = next((m for n in _SHARED if (m := getattr(site.block, n, None)) is not None), None)
        return 0.0 if shared is None else shared.forward(hidden)

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """The block's tokens, what its experts take beside them, and its output, as rows."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            hidden = (*args, *kwargs.values())[0]
            beside = site.block.alongside(*args, **kwargs) if hasattr(site.block, "alongside") else ()  # type: ignore[operator]
            made = output[0] if isinstance(output, tuple) else output
            whole = getattr(site.block, "whole", False)
            hidden, made = (hidden.detach(), made.detach().flatten(1)) if whole else (rows(hidden), rows(made))
            keep((hidden, *(t.detach() for t in beside)), made)

        return [hooks.after(site.block, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert on the rows that have it, times the weight, and what stands beside."""
        hidden = inputs[0]
        record = by_row(record, len(hidden))
        at = torch.arange(len(hidden), device=hidden.device)[:, None]
        made = expert_sum(at, record, lambda number, row: self._made(site, number, *(t[row[:, 0]] for t in inputs)).flatten(1))
        return torch.zeros_like(hidden, dtype=torch.float32).flatten(1) + made + self.beside(site, *inputs)

    def _made(self, site: Site, number: int, hidden: Tensor, *alongside: Tensor) -> Tensor:
        return torch.zeros_like(hidden) if site.roles.get(number) == "null" else self.expert(site, number, hidden, *alongside)


class ByMethod(GatePair):
    """The same where a method of the block decides."""

    method = "route"


def experts_of(block: nn.Module) -> nn.Module | None:
    """Experts that are called by number: modules in a list, or `routed_experts` that take rows, weights, numbers, counts."""
    experts = block._modules.get("experts")
    if isinstance(experts, nn.ModuleList) and len(experts) and not hasattr(experts, "part_features"):
        return experts
    stacked = block._modules.get("routed_experts")
    return stacked if stacked is not None and len(parameters(stacked)) == 4 else None


def places(site: Site, found: list[Any]) -> tuple[int, int]:
    """Where in what a gate returned the numbers and the weights of one shape are. UnknownContract if it has no such two."""
    tensors = {n: t for n, t in enumerate(found) if torch.is_tensor(t) and t.dim() >= 2}
    whole = next((n for n, t in tensors.items() if not t.is_floating_point() and t.dtype is not torch.bool), None)
    if whole is not None:
        like = [n for n, t in tensors.items() if t.is_floating_point() and t.shape == tensors[whole].shape]
        if like:
            return whole, min(like, key=lambda n: abs(n - whole))  # logits have that shape too where all experts are chosen
    said = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in found if torch.is_tensor(t))
    raise UnknownContract(
        f"{site.name} ({type(site.block).__name__}) decides by {said or 'no tensor at all'}, where contract "
        f"'{site.contract.name}' expects expert numbers and weights, both of shape (tokens, k); describe this layer in a "
        "contract of its own (docs/plugin.md)"
    )


def by_row(record: Record, count: int) -> Record:
    """A record with a row for each of `count` rows, where one decision was made for all rows of a sequence."""
    times = count // len(record.experts)
    if times == 1:
        return record
    return replace(
        record, experts=record.experts.repeat_interleave(times, 0), weights=record.weights.repeat_interleave(times, 0)
    )


def rows(hidden: Tensor) -> Tensor:
    """(..., H) → (T, H), without its graph."""
    return hidden.detach().reshape(-1, hidden.shape[-1])


_by_method = ByMethod()
contract = GatePair()
