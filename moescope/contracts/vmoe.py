"""V-MoE routers (moescope.models.vmoe): token choice with capacity, expert choice, soft slots; groups of images are pools.

The experts are handed the whole decision as one object, `experts(tokens (G, S, H), routing)`, so it is read and replaced there.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Edit, Emit, Record, Site
from ..routers.reading.experts_call import expert_count
from ..routers.reading.router_output import RouterOutput

_KINDS = {"TokenChoiceRouter": "token_choice", "ExpertChoiceRouter": "expert_choice", "SoftRouter": "soft"}


class VMoE(Contract):
    """Our own V-MoE layers, and nothing else."""

    name = "vmoe"
    sums_per_token = True
    configured = True
    routing_object = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each mixture layer."""
        router, experts = getattr(module, "router", None), getattr(module, "experts", None)
        kind = _KINDS.get(type(router).__name__)
        if kind and experts is not None and type(module).__module__.startswith("moescope.models.vmoe"):
            config: Any = router.config  # type: ignore[union-attr]
            factor = config.dispatcher.capacity_factor
            count = expert_count(router, experts)  # type: ignore[arg-type]
            yield Site(name, module, router, experts, self, count, kind, capacity_factor=factor, score="softmax")

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Read what the experts were called with, and whether that is what the router returned."""
        assert site.experts is not None
        assert site.router is not None
        word = RouterOutput(site.router, lambda _: ())

        def at_experts(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
            said, _ = word.take()
            found = record(site, args[1])
            if said is not None and said is not args[1]:
                own = record(site, said)
                found.altered = site.kind != "token_choice" or own.experts.shape != found.experts.shape
                found.decided = None if found.altered else (own.experts, own.weights)
            emit(found)

        return [word.handle, hooks.after(site.experts, at_experts, first=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Replace the decision where it enters the experts; what was dropped stays dropped."""

        def before(_: nn.Module, args: tuple[Any, ...]) -> Any:
            tokens, routing = args
            was = record(site, routing)
            return tokens, changed(routing, *edit(was.experts, was.weights))

        assert site.experts is not None
        return [hooks.before(site.experts, before, first=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """See tokens and decision, and what the experts made of them."""
        assert site.experts is not None
        return [hooks.after(site.experts, lambda _, args, output: keep(args, output), first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Expert by expert from the record alone."""
        experts: Any = site.experts
        tokens = inputs[0].flatten(0, 1)
        if site.kind == "soft":
            return _mixed(experts, inputs[0], record).view_as(inputs[0])
        total = torch.zeros_like(tokens)
        for number in range(site.n_experts):
            weight = (record.weights * (record.ran & (record.experts == number))).sum(-1, keepdim=True)
            total += weight * experts._round(experts.expert(number, experts._round(tokens)))
        return total.view_as(inputs[0])


def record(site: Site, routing: Any) -> Record:
    """A decision of any of the three kinds as (T, k) arrays."""
    groups, size = routing.logits.shape[:2]
    pool = torch.arange(groups, device=routing.logits.device).repeat_interleave(size)
    shared = {"pool": pool, "capacity": routing.capacity, "pool_tokens": size}
    if site.kind == "token_choice":
        experts, weights, slots, dropped = (
            t.flatten(0, 1) for t in (routing.indices, routing.weights, routing.slots, routing.dropped)
        )
        noisy = routing.logits if routing.noise is None else routing.logits + routing.noise
        return Record(site, experts, weights, noisy.flatten(0, 1), dropped=dropped, buffer=slots, **shared)
    if site.kind == "expert_choice":
        experts, weights, places = _by_token(routing)
        return Record(site, experts, weights, routing.logits.flatten(0, 1), buffer=places, **shared)
    slots = routing.combine.shape[-1]
    combine, dispatch = routing.combine.flatten(0, 1).flatten(1), routing.dispatch.flatten(0, 1).flatten(1)
    number = torch.arange(combine.shape[-1], device=combine.device).expand_as(combine)
    logits = routing.gates.flatten(0, 1).log()  # softmax of these is the share of each expert
    return Record(site, number // slots, combine, logits, buffer=number % slots, dispatch=dispatch, **shared)


def _by_token(routing: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(T, E) experts (-1: did not choose the token), weights and places of an expert-choice decision."""
    chosen = routing.tokens.transpose(1, 2)  # (G, C, E)
    shape = routing.gates.shape
    place = torch.arange(chosen.shape[1], device=chosen.device)[None, :, None].expand_as(chosen)
    number = torch.arange(shape[-1], device=chosen.device).expand_as(chosen)
    experts = torch.full(shape, -1, device=chosen.device).scatter(1, chosen, number)
    weights = torch.zeros(shape, device=chosen.device, dtype=routing.weights.dtype).scatter(
        1, chosen, routing.weights.transpose(1, 2)
    )
    places = torch.zeros(shape, device=chosen.device, dtype=torch.long).scatter(1, chosen, place)
    return experts.flatten(0, 1), weights.flatten(0, 1), places.flatten(0, 1)


def changed(routing: Any, experts: Tensor, weights: Tensor) -> Any:
    """The same decision with other experts or weights; expert choice can lose tokens and change weights, not gain tokens."""
    if hasattr(routing, "indices"):
        shape = routing.indices.shape
        return replace(routing, indices=experts.view(shape), weights=weights.view(shape))
    if hasattr(routing, "combine"):
        return replace(routing, combine=weights.view(routing.combine.shape))
    full = torch.where(experts >= 0, weights, 0).view(routing.gates.shape)  # (G, S, E)
    return replace(routing, weights=full.gather(1, routing.tokens.transpose(1, 2)).transpose(1, 2))


def _mixed(experts: Any, tokens: Tensor, record: Record) -> Tensor:
    assert record.dispatch is not None
    groups, size, _ = tokens.shape
    combine, dispatch = (t.view(groups, size, -1) for t in (record.weights, record.dispatch))
    inputs = torch.einsum("gsk,gsh->gkh", dispatch, tokens.to(torch.bfloat16).to(tokens.dtype))
    numbers = record.experts[0]
    made = torch.stack([experts.expert(int(n), inputs[:, i]) for i, n in enumerate(numbers)], 1)
    return torch.einsum("gsk,gkh->gsh", combine, made.to(torch.bfloat16).to(made.dtype))


contract = VMoE()
