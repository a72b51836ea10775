"""Experts chosen by an argument, no router (ViTPose): every token of an image goes to the expert of the image's data set."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Edit, Emit, Record, Site
from ..routers.reading.stash import Stash, ratio, stashed


class StaticIndex(Contract):
    """ViTPose++: `experts(hidden (B, S, H), indices (B, 1, 1))` runs every expert and keeps the one named."""

    name = "static_index"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a part of the features comes from experts that take indices and nothing else."""
        experts = getattr(module, "experts", None)
        if isinstance(experts, nn.ModuleList) and hasattr(experts, "part_features"):
            yield Site(name, module, None, experts, self, len(experts), "static", shared=1, score="none")

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Read the indices as they enter the experts, behind every other hook, and the weights that an edit has left."""
        assert site.experts is not None

        def at_experts(module: nn.Module, args: tuple[Any, ...]) -> None:
            experts = spread(*args[:2])
            given = stashed(module)
            weights = torch.ones_like(experts, dtype=args[0].dtype) if given is None else given
            outside = (experts < 0) | (experts >= site.n_experts)
            emit(Record(site, experts.masked_fill(outside, -1), weights.masked_fill(outside, 0)))

        return [hooks.before(site.experts, at_experts, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Name an expert for each token, and multiply what comes out."""
        assert site.experts is not None
        stash, seen = Stash(site.experts), list[Tensor]()

        def begin(_: nn.Module, args: tuple[Any, ...]) -> None:
            stash.put(torch.ones(args[0].shape[:2].numel(), 1, dtype=args[0].dtype, device=args[0].device))

        def before(_: nn.Module, args: tuple[Any, ...]) -> Any:
            was = stash.get()
            experts, weights = edit(spread(*args[:2]), was)
            seen[:] = [ratio(weights, was)]
            stash.put(weights)
            return args[0], experts.view(*args[0].shape[:2], 1)

        def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            return output * seen[0].view(*output.shape[:2], 1)

        return [
            hooks.before(site.block, begin),
            hooks.before(site.experts, before, first=True),
            hooks.after(site.experts, after, first=True),
            stash,
        ]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """See the experts' inputs and output."""
        assert site.experts is not None
        return [hooks.after(site.experts, lambda _, args, output: keep(args, output.flatten(0, 1)))]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert's linear map on the tokens that it has, times the weight."""
        experts: Any = site.experts
        hidden = inputs[0].flatten(0, 1)
        total = torch.zeros(len(hidden), experts.part_features, dtype=torch.float32, device=hidden.device)
        for number in range(site.n_experts):
            token, slot = (record.experts == number).nonzero(as_tuple=True)
            total[token] += (experts[number].forward(hidden[token]) * record.weights[token, slot, None]).float()
        return total


def spread(hidden: Tensor, indices: Tensor) -> Tensor:
    """(B S, 1) expert of every token from (B, 1, 1) or (B, S, 1) indices."""
    return indices.long().expand(*hidden.shape[:2], 1).reshape(-1, 1)


contract = StaticIndex()
