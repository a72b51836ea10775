"""The call that has not drifted over Transformers 5: `experts(hidden (T, H), top_k_index (T, k), top_k_weights (T, k))`.

What enters it is the decision as executed, so it is read there and nowhere else; the router's own output adds the logits and
the decision as made. Contracts that share this call differ only in what their router returns.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ._base import Edit, Emit, Record, Site, named, renamed

Said = tuple[Tensor | None, tuple[Tensor, Tensor] | None]
"""(logits, decided (experts, weights)) as a router said them."""


class ExpertsCall:
    """A block that owns a router and `experts`, and hands the one's decision to the other."""

    name = "experts_call"

    def speaks(self, router: nn.Module, output: Any) -> bool:
        """Whether a router's output is of this contract's form."""
        raise NotImplementedError

    def said(self, output: Any) -> Said:
        """(logits, decided) from a router's output of this form."""
        raise NotImplementedError

    def router_of(self, block: nn.Module) -> nn.Module | None:
        """The router that a block owns, if the block is of this contract."""
        raise NotImplementedError

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site if `module` owns a router of this contract and experts."""
        router, experts = self.router_of(module), getattr(module, "experts", None)
        if router is not None and isinstance(experts, nn.Module) and len(inspect.signature(experts.forward).parameters) >= 3:
            yield Site(name, module, router, experts, self, expert_count(router, experts))

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Two hooks: logits and decision at the router, the decision as executed where it enters the experts."""
        heard: list[Said] = []

        def at_router(_: nn.Module, __: Any, output: Any) -> None:
            heard[:] = [self.said(output)]

        def at_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            _, experts, weights = named(args, kwargs, 3)
            logits, decided = heard.pop() if heard else (None, None)
            same = decided is None or decided[0] is experts or decided[0].data_ptr() == experts.data_ptr()
            emit(self.record(site, experts, weights, logits, None if same else decided))

        assert site.router is not None
        assert site.experts is not None
        return [
            site.router.register_forward_hook(at_router),
            site.experts.register_forward_pre_hook(at_experts, with_kwargs=True),
        ]

    def record(
        self, site: Site, experts: Tensor, weights: Tensor, logits: Tensor | None, decided: tuple[Tensor, Tensor] | None
    ) -> Record:
        """What is kept of a call; families with sentinels override it."""
        return Record(site, experts, weights, flat(logits), decided)

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Replace what enters the experts."""

        def at_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, experts, weights = named(args, kwargs, 3)
            return renamed(args, kwargs, (hidden, *edit(experts, weights)))

        assert site.experts is not None
        return [site.experts.register_forward_pre_hook(at_experts, with_kwargs=True, prepend=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """See the experts' inputs and output."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            keep(named(args, kwargs, 3), output[0] if isinstance(output, tuple) else output)

        assert site.experts is not None
        return [site.experts.register_forward_hook(after, with_kwargs=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Sum over experts of the experts' own forward, asked for one expert at a time."""
        hidden = inputs[0]
        weights = torch.zeros(len(hidden), int(record.experts.max()) + 1, dtype=record.weights.dtype, device=hidden.device)
        weights.scatter_add_(1, record.experts.clamp(min=0).long(), record.weights.masked_fill(record.experts < 0, 0))
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for expert in weights.any(0).nonzero().flatten().tolist():
            total += self.one(site, hidden, expert, weights[:, expert]).float()
        return total

    def one(self, site: Site, hidden: Tensor, expert: int, weight: Tensor) -> Tensor:
        """(T, H) contribution of one expert with the given weight per token; hooks are not run."""
        assert site.experts is not None
        index = torch.full((len(hidden), 1), expert, dtype=torch.long, device=hidden.device)
        out = site.experts.forward(hidden, index, weight[:, None].to(inputs_dtype(weight, hidden)))
        return out[0] if isinstance(out, tuple) else out


def inputs_dtype(weight: Tensor, hidden: Tensor) -> torch.dtype:
    """Weights keep their own type unless it is an integer."""
    return weight.dtype if weight.is_floating_point() else hidden.dtype


def flat(logits: Tensor | None) -> Tensor | None:
    """(T, E) from (..., E)."""
    return None if logits is None else logits.reshape(-1, logits.shape[-1])


def expert_count(router: nn.Module, experts: nn.Module) -> int:
    """Routed experts: what the experts hold, as the first dimension of their stacked weights or as modules."""
    stacked = [p.shape[0] for p in experts.parameters(recurse=False) if p.dim() == 3]
    if stacked:
        return stacked[0]
    for attribute in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        if isinstance(value := getattr(experts, attribute, getattr(router, attribute, None)), int):
            return value
    return len(list(experts.children()))


def child_router(block: nn.Module) -> nn.Module | None:
    """The child that decides: named gate or router, or of a class named so; a plain Linear is not one."""
    children = dict(block.named_children())
    named_so = [children[name] for name in ("gate", "router") if name in children]
    classed = [m for m in children.values() if type(m).__name__.endswith(("Router", "Gate", "Gating"))]
    return next((m for m in [*named_so, *classed] if type(m) is not nn.Linear), None)
