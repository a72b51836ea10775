"""Routers that decide how deep a token goes: whether a block runs on it, or how often (Mixture-of-Depths, -Recursions, CoLT5).

Such a block owns `router` and `block` and has two methods: `route(hidden (B, S, H), alive (B, S) or None)` gives (chosen,
weights, logits[, capacity]), (B, S, N) each for N runs of the block, and `run(places (B, K), hidden, ...)` what one run makes
of the places taken (-1: none). A token's output is itself plus the last of its runs times its weight. CoLT5's feed-forward
takes its heavy branch for the tokens that its router names; the light one is beside it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Record, Site
from ..routers.reading.router_call import RouterCall
from ..routers.rows.nested import packed


class Runs(RouterCall):
    """A block with `route` and `run`: expert n is the n-th run, -1 that it did not take place."""

    name, method = "depth", "route"
    constant_output = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a block may be run or left out."""
        inner, router = (module._modules.get(child) for child in ("block", "router"))
        if inner is None or router is None or not all(callable(getattr(module, m, None)) for m in ("route", "run")):
            return
        site = Site(name, module, router, inner, self, int(getattr(module, "count", 1)), "depth", "residual", place="block")
        numbers = [part for part in name.split(".") if part.isdigit()]
        site.place += f".{numbers[-1]}" if len(numbers) > 1 else ""  # recursions of one layer
        capacity = getattr(module, "capacity", None)
        site.capacity_factor = capacity if isinstance(capacity, float) else None
        site.roles = {}
        yield site

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """All runs of every token that may take part."""
        chosen, weights, logits, *rest = output
        hidden, rows = args[0], _rows(args)
        capacity = rest[0] if rest else None
        site.pool_axes = "L" if capacity is not None else "E" if site.n_experts > 1 else None
        runs = torch.arange(site.n_experts, device=chosen.device)
        flat = [t.flatten(0, 1) if rows is None else t.flatten(0, 1)[rows] for t in (chosen, weights, logits)]
        record = Record(site, torch.where(flat[0], runs, -1), flat[1].masked_fill(~flat[0], 0), flat[2], rows=rows)
        if capacity is not None:
            every = torch.arange(hidden.shape[:2].numel(), device=hidden.device) if rows is None else rows
            record.pool, record.capacity = every // hidden.shape[1], capacity
            record.pool_tokens = int(hidden.shape[1] if rows is None else record.pool.bincount().max())
        return record

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Other runs, with other weights, for the tokens of the record."""
        chosen, given = spread(experts, weights, site.n_experts, _rows(args), output[0].shape)
        new = (chosen, torch.where(chosen, given, output[1]), *output[2:])
        return type(output)(*new) if hasattr(output, "_fields") else new

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """What the record's tokens were and became; then all that the block was called with."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            hidden, *rest = args if args else kwargs.values()
            kwargs = kwargs if args else dict(list(kwargs.items())[1:])
            rows = record_rows[-1] if record_rows else None
            flat = [t.detach().flatten(0, 1) for t in (hidden, output[0] if isinstance(output, tuple) else output)]
            some = [t.clone() if rows is None else t[rows] for t in flat]
            keep((some[0], hidden.detach().clone(), tuple(rest) if args else (), kwargs), some[1])

        record_rows: list[Tensor | None] = []
        heard = self.listen(site, lambda record: record_rows.__setitem__(slice(None), [record.rows]))
        return [*heard, hooks.after(site.block, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Run after run, each with the record's tokens in it."""
        _, hidden, args, kwargs = inputs
        block: Any = site.block
        chosen, weights = spread(
            record.experts, record.weights, site.n_experts, record.rows, (*hidden.shape[:2], site.n_experts)
        )
        state, out = hidden.clone(), hidden.float().clone()
        for number in range(site.n_experts):
            places = packed(chosen[..., number])
            made = block.run(places, state, *args, **kwargs)
            row, slot = (places >= 0).nonzero(as_tuple=True)
            place = places[row, slot]
            result = made[row, slot] * weights[row, place, number, None]
            state[row, place] = result
            final = ~chosen[row, place, number + 1 :].any(-1)
            out[row[final], place[final]] += result[final].float()
        return out.flatten(0, 1) if record.rows is None else out.flatten(0, 1)[record.rows]


class HeavyBranch(RouterCall):
    """CoLT5's conditional feed-forward: its router returns (places (B, k), scores (B, k), tokens, mask)."""

    name = "depth"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a heavy branch stands beside a light one."""
        heavy, light, router = (module._modules.get(child) for child in ("heavy_ff", "light_ff", "router"))
        if heavy is not None and light is not None and router is not None and getattr(router, "is_one_routing_token", False):
            yield Site(name, module, router, heavy, self, 1, "depth", pool_axes="L", expert_names={0: "heavy"})

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """Every token: the heavy branch ran on it, or not."""
        hidden, (places, scores) = args[0], output[:2]
        dense = scores if places is None else scores.new_zeros(hidden.shape[:2]).scatter(1, places, scores)
        weights = dense.reshape(-1, 1)
        experts = torch.where(weights != 0, 0, -1)
        pool = torch.arange(len(hidden), device=hidden.device).repeat_interleave(hidden.shape[1])
        return Record(site, experts, weights, pool=pool, capacity=scores.shape[1], pool_tokens=hidden.shape[1])

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Name other tokens; where a sequence has fewer than another, places that it has not, with score 0."""
        hidden = args[0]
        chosen, given = (t.squeeze(-1) for t in spread(experts, weights, 1, None, (*hidden.shape[:2], 1)))
        if output[0] is not None and torch.equal(chosen, torch.zeros_like(chosen).scatter(1, output[0], True)):
            places = output[0]
        else:
            places = torch.argsort((~chosen).to(torch.uint8), dim=1, stable=True)[:, : max(1, int(chosen.sum(1).max()))]
        scores = given.masked_fill(~chosen, 0).gather(1, places)
        tokens = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        return type(output)(places, scores, tokens, None)

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """(n, H) the heavy branch."""
        return site.block.get_submodule("heavy_ff").forward(hidden)

    def beside(self, site: Site, hidden: Tensor) -> Tensor | float:
        """(T, H) the light branch."""
        light: Tensor = site.block.get_submodule("light_ff").forward(hidden)
        return light


class Depth(Contract):
    """Whichever of both a module is."""

    name = "depth"
    _forms = Runs(), HeavyBranch()

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """Sites of the form that knows the module."""
        for form in self._forms:
            yield from form.find(name, module)


def _rows(args: tuple[Any, ...]) -> Tensor | None:
    """(T,) places in the stream of the tokens that may take part, by what `route` was called with; None for all."""
    alive: Any = args[1] if len(args) > 1 else None
    return alive.flatten().nonzero()[:, 0] if torch.is_tensor(alive) else None


def spread(
    experts: Tensor, weights: Tensor, count: int, rows: Tensor | None, shape: tuple[int, ...] | torch.Size
) -> tuple[Tensor, Tensor]:
    """(B, S, N) which of `count` runs each token takes part in, and with which weight; nothing for tokens not in `rows`."""
    slot = torch.where(experts >= 0, experts, count).long()
    chosen = torch.zeros(len(slot), count + 1, dtype=torch.bool, device=slot.device).scatter(1, slot, True)[:, :count]
    given = weights.new_zeros(len(slot), count + 1).scatter_add(1, slot, weights)[:, :count]
    if rows is not None:
        chosen, given = (t.new_zeros(shape).flatten(0, 1).index_copy(0, rows, t) for t in (chosen, given))
    return chosen.view(shape), given.view(shape)


contract = Depth()
