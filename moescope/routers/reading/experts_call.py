"""The call that has not drifted over Transformers 5: `experts(hidden (T, H), top_k_index (T, k), top_k_weights (T, k))`.

What enters it is the decision as executed, so it is read there and nowhere else; the router's own output adds the logits and
the decision as made. Contracts that share this call differ only in what their router returns.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ...errors import UnknownContract
from ..base import Contract, Edit, Emit, Record, Site, named, renamed
from ..calls import bare, signature
from ..rows import skip_sentinels
from ..rows.subsets import Subset
from .router_output import RouterOutput, same

Said = tuple[Tensor | None, tuple[Tensor, Tensor] | None]
"""(logits, decided (experts, weights)) as a router said them."""


class ExpertsCall(Contract):
    """A block that owns a router and `experts`, and hands the one's decision to the other."""

    name = "experts_call"
    general = True  # asked last: a contract that knows a layer by more than this call goes first

    def said(self, output: Any) -> Said:
        """(logits, decided) from a router's output of this form."""
        raise NotImplementedError

    def router_of(self, block: nn.Module) -> nn.Module | None:
        """The router that a block owns, if the block is of this contract."""
        raise NotImplementedError

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site if `module` owns a router of this contract and experts."""
        router, experts = self.router_of(module), getattr(module, "experts", None)
        experts = getattr(experts, "_original_component", experts)  # behind a TransformerLens bridge
        if router is not None and isinstance(experts, nn.Module) and takes_assignments(experts):
            count = expert_count(bare(router), bare(experts))
            roles = skip_sentinels.roles(bare(router), bare(experts), count)
            kind = "hash" if hasattr(bare(router), "tid2eid") else "token_choice"
            yield Site(name, module, router, experts, self, count, kind, roles=roles)

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Two hooks: the router's own word, and what its experts were called with, whatever hooks made of it in between."""
        assert site.router is not None
        assert site.experts is not None
        word = RouterOutput(site.router, lambda said: said[1] or (), self.said)
        subset, skips = Subset(site), skip_sentinels.skips(site)
        parts = bool(subset.handles)

        def at_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], __: Any) -> None:
            _, experts, weights = args if len(args) == 3 else named(args, kwargs, 3)
            said, altered = word.take()
            logits, decided = said or (None, None)
            if logits is not None and logits.shape[-1] < site.n_experts:
                logits = None
            if decided is None or decided[0] is not experts or decided[1] is not weights or experts.dim() != 2:
                check_form(site, experts, weights)
                unlike = decided is not None and not (same(decided[0], experts) and same(decided[1], weights))
                decided = decided if unlike and not altered else None
            else:  # nearly always: the very tensors that the router returned
                decided = None
            if skips:
                experts, weights = skip_sentinels.skip_to_number(site, experts, weights)
                decided = None if decided is None else skip_sentinels.skip_to_number(site, *decided)
            emit(Record(site, experts, weights, flat(logits), decided, rows=subset.rows() if parts else None, altered=altered))

        return [word.handle, hooks.after(site.experts, at_experts, kwargs=True, first=True), *subset.handles]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Replace what enters the experts."""

        def at_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, *assigned = named(args, kwargs, 3)
            changed = edit(*skip_sentinels.skip_to_number(site, *assigned))
            return renamed(args, kwargs, (hidden, *skip_sentinels.number_to_skip(site, *changed)))

        assert site.experts is not None
        return [hooks.before(site.experts, at_experts, kwargs=True, first=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """See the experts' inputs, and their output before any hook on it."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            keep(named(args, kwargs, 3), output.reshape(-1, output.shape[-1]))

        assert site.experts is not None
        return [hooks.after(site.experts, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Sum over experts of the experts' own forward, asked for one expert at a time."""
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        experts, given = skip_sentinels.number_to_skip(site, record.experts, record.weights)
        weights = torch.zeros(len(hidden), int(experts.max()) + 1, dtype=given.dtype, device=hidden.device)
        weights.scatter_add_(1, experts.clamp(min=0).long(), given.masked_fill(experts < 0, 0))
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for expert in weights.any(0).nonzero().flatten().tolist():
            total += self.one(site, hidden, expert, weights[:, expert]).float().reshape(total.shape)
        return total

    def one(self, site: Site, hidden: Tensor, expert: int, weight: Tensor) -> Tensor:
        """(T, H) contribution of one expert with the given weight per token; hooks are not run.

        The expert is named in two places, the second with weight 0: LongCat's experts squeeze a single one away.
        """
        assert site.experts is not None
        wide = 2 if site.roles else 1
        index = torch.full((len(hidden), wide), expert, dtype=torch.long, device=hidden.device)
        weights = torch.zeros_like(index, dtype=weight.dtype if weight.is_floating_point() else hidden.dtype)
        weights[:, 0] = weight
        out = site.experts.forward(hidden, index, weights)
        return out[0] if isinstance(out, tuple) else out


def check_form(site: Site, experts: Tensor, weights: Tensor) -> None:
    """UnknownContract unless a call is (T, k) whole numbers and as many weights; reads shapes and types only."""
    if experts.is_floating_point() or experts.dim() != 2 or experts.shape != weights.shape:
        raise UnknownContract(
            f"{site.name} hands its experts {_form(experts)} and {_form(weights)}, where contract '{site.contract.name}' "
            "expects expert numbers and weights, both of shape (tokens, k); describe this layer in a contract of its own "
            "(docs/plugin.md)"
        )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def takes_assignments(experts: nn.Module) -> bool:
    """Whether a module is called with three things: hidden, indices, weights."""
    return len(parameters(experts)) >= 3


def parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """The parameters of a module's forward, without *args and **kwargs."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {n: p for n, p in signature(module).parameters.items() if p.kind not in variadic}


def flat(logits: Tensor | None) -> Tensor | None:
    """(T, E) from (..., E)."""
    return logits if logits is None or logits.dim() == 2 else logits.reshape(-1, logits.shape[-1])


def expert_count(router: nn.Module, experts: nn.Module) -> int:
    """Routed experts: what the experts hold, as the first dimension of their stacked weights or as modules."""
    stacked = [p.shape[0] for p in experts.parameters(recurse=False) if p.dim() == 3]
    if stacked:
        return min(stacked)
    for attribute in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        if isinstance(value := getattr(experts, attribute, getattr(router, attribute, None)), int):
            return value
    return len(list(experts.children()))


def child_router(block: nn.Module) -> nn.Module | None:
    """The child that decides: named gate or router, or of a class named so."""
    children = dict(block.named_children())
    named_so = [children[name] for name in ("gate", "router") if name in children]
    classed = [m for m in children.values() if type(bare(m)).__name__.endswith(("Router", "Gate", "Gating"))]
    return next(iter([*named_so, *classed]), None)
