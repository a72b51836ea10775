"""Routers that return their assignments sorted by expert (JetMoE): `(order, tokens, weights, sizes, logits)`.

`order` (T k,) sorts the flattened (T, k) choices by expert, `sizes` counts each expert's, so both are undone from there. JetMoE
has two such routers in a layer: of the feed-forward, and of the attention, whose `experts` module is never called but maps the
queries into experts and reduces their outputs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Edit, Emit, Record, Site
from ..routers.reading.experts_call import child_router
from ..routers.reading.router_output import RouterOutput, same

_LINEARS = ("input_linear", "output_linear")


class SortedDispatch(Contract):
    """JetMoE's mixture of feed-forwards and its mixture of attention heads."""

    name = "sorted_dispatch"
    constant_output = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for a module that owns a router and both expert stacks."""
        router = child_router(module)
        if router is not None and all(hasattr(module, linear) for linear in _LINEARS):
            count = int(module.input_linear.num_experts)  # type: ignore[union-attr, arg-type]
            yield Site(name, module, router, module.output_linear, self, count)  # type: ignore[arg-type]

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Read the dispatch as it leaves the router, behind every other hook; what follows has no other copy of it."""
        assert site.router is not None
        word = RouterOutput(site.router, lambda output: output[:3])

        def at_end(_: nn.Module, __: Any, output: Any) -> None:
            said, altered = word.take()
            changed = said is not None and not altered and not all(same(a, b) for a, b in zip(said[:3], output[:3]))
            emit(Record(site, *assigned(output), output[4], assigned(said) if changed else None, altered=altered))

        return [word.handle, hooks.after(site.router, at_end, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Sort the changed choices as the router sorts its own; an empty place goes to expert 0 with weight 0."""

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            experts, weights = edit(*assigned(output))
            return *dispatch(experts.clamp(min=0), weights.masked_fill(experts < 0, 0), site.n_experts), *output[4:]

        assert site.router is not None
        return [hooks.after(site.router, after, first=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """Feed-forward: tokens and the block's output. Attention: the heads' outputs by choice, and the attention's output."""
        if hasattr(site.block, "reduce"):
            return _watch_attention(site, keep)
        return [hooks.after(site.block, lambda _, args, output: keep((_rows(args[0]),), _rows(_first(output))), first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Bias, and each expert on the tokens that chose it, times the weight."""
        block: Any = site.block
        hidden = inputs[0]
        total = block.bias.float().expand(len(record.experts), -1).clone()
        for number in range(site.n_experts):
            token, slot = (record.experts == number).nonzero(as_tuple=True)
            sizes = [len(token) if n == number else 0 for n in range(site.n_experts)]
            rows = hidden[token, slot] if hidden.dim() == 3 else _feed_forward(block, hidden[token], sizes)
            made = block.output_linear.forward(rows, sizes).float() * record.weights[token, slot, None].float()
            total.index_add_(0, token, made)
        return total


def assigned(output: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """(T, k) experts and weights, in the router's own order of choices, from what it returns."""
    order, _, weights, sizes, logits = output[:5]
    count = torch.as_tensor(sizes, device=order.device)
    sorted_ = torch.repeat_interleave(torch.arange(len(count), device=order.device), count)
    shape = (len(logits), len(order) // max(len(logits), 1))
    return torch.empty_like(order).scatter(0, order, sorted_).view(shape), weights.new_empty(len(order)).scatter(
        0, order, weights
    ).view(shape)


def dispatch(experts: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """(order, tokens, weights, sizes) of (T, k) choices, by the router's own operations."""
    flat = experts.flatten()
    order = flat.sort(0).indices
    tokens = order.div(experts.shape[-1], rounding_mode="trunc")
    return order, tokens, weights.flatten()[order], torch.bincount(flat, minlength=count).tolist()


def _watch_attention(site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
    """The heads' outputs, put back from sorted order to (T, k, width) by the router's own `order`."""
    seen: dict[str, Any] = {}

    def at_router(_: nn.Module, __: Any, output: Any) -> None:
        seen["order"], seen["tokens"] = output[0], len(output[4])

    def at_linear(_: nn.Module, args: tuple[Any, ...]) -> None:
        rows = torch.empty_like(args[0])
        rows[seen["order"]] = args[0]
        seen["rows"] = rows.view(seen["tokens"], -1, rows.shape[-1])

    assert site.router is not None
    assert site.experts is not None
    assert site.parent is not None
    return [
        hooks.after(site.router, at_router),
        hooks.before(site.experts, at_linear),
        hooks.after(site.parent, lambda _, __, output: keep((seen["rows"],), _rows(_first(output)))),
    ]


def _feed_forward(block: Any, rows: Tensor, sizes: list[int]) -> Tensor:
    gate, up = block.input_linear.forward(rows, sizes).chunk(2, dim=-1)
    return block.activation(gate) * up


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _rows(hidden: Tensor) -> Tensor:
    return hidden.reshape(-1, hidden.shape[-1])


contract = SortedDispatch()
