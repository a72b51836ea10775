"""Routers inside a block that takes only some tokens (Mixture-of-Depths around a mixture): which tokens their rows are."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ..base import Contract, Emit, Record, Site
from ..reading.wrapped_method import after_method


def nest(sites: Sequence[Site]) -> None:
    """Let every site whose block lies inside blocks that may be left out name its rows by what those took."""
    around = [(site, {id(m) for m in site.block.modules()}) for site in sites if site.kind == "depth" and _lays_out(site)]
    for site in sites:
        outers = [outer for outer, inside in around if id(site.block) in inside and outer is not site]
        if outers:
            site.contract = cast(Contract, Inside(site.contract, outers))


def _lays_out(site: Site) -> bool:
    return callable(getattr(site.block, "run", None))


class Inside:
    """A contract as it is, except that its records say which places of the whole stream their rows are."""

    def __init__(self, own: Contract, outers: list[Site]) -> None:
        self._own, self._outers = own, outers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """As the contract listens; behind that, the places are put in."""
        open_blocks: list[_Open] = []
        handles = [handle for outer in self._outers for handle in _follow(outer, open_blocks)]

        def place(record: Record) -> None:
            rows = None
            for block in open_blocks:
                rows = block.places(rows)
            if rows is not None and (record.rows is not None or len(rows) == len(record.experts)):
                record.rows = rows if record.rows is None else rows[record.rows]
            emit(record)

        return [*handles, *self._own.listen(site, place)]


class _Open:
    """A block that is being called, and what its runs take."""

    def __init__(self, places: int) -> None:
        self.width, self.chosen, self.runs = places, torch.zeros(0), 0

    def places(self, before: Tensor | None) -> Tensor:
        """(B K,) places that the run under way takes, -1 for none; `before`: those of the block around it."""
        taken = packed(self.chosen[..., self.runs])
        flat = (torch.arange(len(taken), device=taken.device)[:, None] * self.width + taken).flatten()
        flat = flat if before is None else before[flat.clamp(min=0)]
        return flat.masked_fill(taken.flatten() < 0, -1)


def _follow(outer: Site, open_blocks: list[_Open]) -> list[RemovableHandle]:
    def enters(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        open_blocks.append(_Open((*args, *kwargs.values())[0].shape[1]))

    def routed(_: tuple[Any, ...], output: Any) -> Any:
        if open_blocks:
            open_blocks[-1].chosen = output[0]
        return output

    def ran(_: tuple[Any, ...], output: Any) -> Any:
        if open_blocks:
            open_blocks[-1].runs = min(open_blocks[-1].runs + 1, open_blocks[-1].chosen.shape[-1] - 1)
        return output

    def leaves(*_: Any) -> None:
        if open_blocks:
            open_blocks.pop()

    return [
        hooks.before(outer.block, enters, kwargs=True, first=True),
        after_method(outer.block, "route", routed, last=True),
        after_method(outer.block, "run", ran, last=True),
        hooks.after(outer.block, leaves, always=True, last=True),
    ]


def packed(chosen: Tensor) -> Tensor:
    """(B, K) places chosen (B, S) of each sequence in order, -1 behind the last."""
    count = chosen.sum(1)
    index = chosen.new_full((len(chosen), int(count.max())), -1, dtype=torch.long)
    row, place = chosen.nonzero(as_tuple=True)
    index[row, (chosen.cumsum(1) - 1)[row, place]] = place
    return index
