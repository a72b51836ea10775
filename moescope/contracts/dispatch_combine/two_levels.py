"""Two gates, one behind the other: the outer one fills buffers of groups, the inner one those of each group's experts."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ...routers.base import Contract, Edit, Emit, Record, Site
from ...routers.expert_sum import expert_sum
from ...routers.rows.buffers import Placement, one_expert, placed_anew, record, top_k


class TwoLevels(Contract):
    """`gate_outer` and `gate_inner`, which is called with all groups' buffers (groups, B, C, H) at once."""

    name = "dispatch_combine"
    capacity = True
    keeps_drops = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """The outer gate, and the inner one once for each group."""
        outer, inner, experts = (module._modules.get(n) for n in ("gate_outer", "gate_inner", "experts"))
        groups, count = (getattr(gate, "num_gates", None) for gate in (outer, inner))
        if experts is None or not isinstance(groups, int) or not isinstance(count, int):
            return
        root = f"{name}.gate_outer".lstrip(".")
        for number in reversed(range(groups)):  # they are seen in the other order
            site = Site(f"{name}.gate_inner.group{number}".lstrip("."), module, None, experts, self, count, pool_axes="E")
            site.parent_site, site.parent_expert, site.place = root, number, f"ffn.group{number}"
            site.capacity_factor = getattr(inner, "capacity_factor_eval", None)
            yield site
        factor = getattr(outer, "capacity_factor_eval", None)
        yield Site(root, module, None, experts, self, groups, pool_axes="E", capacity_factor=factor)

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Read the site's gate behind every hook."""
        outer, handles = _last_word(site, "outer")
        own = hooks.after(_gate(site), lambda _, __, output: emit(self._read(site, output, outer)), last=True)
        return [*handles, own]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Other places in the outer gate's buffers, or in those of one group."""
        outer, handles = _last_word(site, "outer")

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            found = self._read(site, output, outer)
            return self._written(site, output, outer, *edit(found.experts, found.weights))

        return [*handles, hooks.after(_gate(site), after)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """The site's tokens, then all tokens and both gates' words, from which everything follows."""
        outer, first = _last_word(site, "outer")
        inner, second = _last_word(site, "inner")

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            hidden = (*args, *kwargs.values())[0].detach().clone()
            made, rows = output[0].detach().flatten(0, 1).clone(), self._rows(site, outer)
            tokens = hidden.flatten(0, 1)
            some = (tokens, made) if rows is None else (tokens[rows], made[rows])
            keep((some[0], hidden, tuple(outer[0][:2]), tuple(inner[0][:2])), some[1])

        return [*first, *second, hooks.after(site.block, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Σ over groups and experts of the product of both weights times the expert, with this record in its gate's place."""
        _, hidden, outer, inner = inputs
        groups, within = Placement.of(*outer).weights, _within(outer, inner)
        if site.parent_expert is None:
            groups = _spread(record, site.n_experts)
        else:
            own = _spread(record, site.n_experts)
            within[:, site.parent_expert] = torch.zeros_like(within[:, 0]).index_copy(0, record.rows, own)  # type: ignore[arg-type]
        both = (groups[..., None] * within).flatten(1)
        numbers = torch.arange(both.shape[1], device=both.device).expand_as(both)
        whole, count = Record(site, numbers.masked_fill(both == 0, -1), both), within.shape[-1]
        made = expert_sum(hidden.flatten(0, 1), whole, lambda n, x: one_expert(site.experts, divmod(n, count), x))
        return made if record.rows is None else made[record.rows]

    def _read(self, site: Site, output: Any, outer: list[Any]) -> Record:
        wide = top_k(_gate(site))
        if site.parent_expert is None:
            return record(site, Placement.of(*output[:2]), None, None, wide)
        found = record(site, Placement.of(*(t[site.parent_expert] for t in output[:2])), None, None, wide)
        occupied, found.rows = _occupied(site, outer)
        for name in ("experts", "weights", "buffer", "dropped", "pool"):
            setattr(found, name, getattr(found, name)[occupied])
        return found

    def _rows(self, site: Site, outer: list[Any]) -> Tensor | None:
        return None if site.parent_expert is None else _occupied(site, outer)[1]

    def _written(self, site: Site, output: Any, outer: list[Any], experts: Tensor, weights: Tensor) -> Any:
        if site.parent_expert is None:
            return (*placed_anew(output[0], output[1], experts, weights), *output[2:])
        own = [t[site.parent_expert] for t in output[:2]]
        occupied, _ = _occupied(site, outer)
        size = own[0].shape[:2].numel()
        full = experts.new_full((size, experts.shape[1]), -1).index_copy(0, occupied, experts)
        given = weights.new_zeros(size, weights.shape[1]).index_copy(0, occupied, weights)
        new = placed_anew(own[0], own[1], full, given)
        both = [nn.functional.pad(t, (0, part.shape[-1] - t.shape[-1])).clone() for t, part in zip(output[:2], new)]
        for tensor, part in zip(both, new):
            tensor[site.parent_expert] = part
        return (*both, *output[2:])


def _gate(site: Site) -> nn.Module:
    return site.block.get_submodule("gate_outer" if site.parent_expert is None else "gate_inner")


def _last_word(site: Site, which: str) -> tuple[list[Any], list[RemovableHandle]]:
    """What a gate of the block said last, behind every hook, also those that are put there later."""
    said: list[Any] = []
    gate = site.block.get_submodule(f"gate_{which}")
    heard = hooks.after(gate, lambda _, __, output: said.__setitem__(slice(None), [output]), last=True)
    return said, [heard, hooks.before(gate, lambda *_: heard.stay_last())]


def _occupied(site: Site, outer: list[Any]) -> tuple[Tensor, Tensor]:
    """Places (of B C) of a group's buffer that hold a token, and the places of these tokens in the stream, in order."""
    mine = outer[0][0][:, :, site.parent_expert].transpose(1, 2) > 0.5  # (B, C, N)
    at = mine.float().argmax(-1) + torch.arange(len(mine), device=mine.device)[:, None] * mine.shape[-1]
    occupied = mine.any(-1).flatten().nonzero()[:, 0]
    rows, order = at.flatten()[occupied].sort()
    return occupied[order], rows


def _within(outer: Any, inner: Any) -> Tensor:
    """(T, groups, experts) the inner weights of each token in each group, 0 where it has no place there."""
    first, (batch, count, groups, _) = Placement.of(*outer), outer[0].shape
    row = torch.arange(batch, device=first.places.device).repeat_interleave(count)
    dense = inner[1].detach().sum(-1)  # (groups, B, C, experts)
    return torch.stack([dense[g, row, first.places[:, g]] * first.there[:, g, None] for g in range(groups)], 1)


def _spread(record: Record, count: int) -> Tensor:
    """(T, E) the weights of a record, 0 for what was dropped."""
    slot = torch.where(record.experts >= 0, record.experts, count).long()
    given = record.weights if record.dropped is None else record.weights.masked_fill(record.dropped, 0)
    return given.new_zeros(len(slot), count + 1).scatter_add(1, slot, given)[:, :count]
