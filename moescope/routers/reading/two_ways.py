"""Two copies of a module, of which places of a sequence take the one or the other: torchscale's MultiwayNetwork (BEiT-3, VLMo).

`split_position` says how many places go through A (-1: all); the others go through B. Nothing is routed, so another decision is
executed by running the other copy on the rows that are to change.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..base import Record, Site
from .router_call import RouterCall
from .stash import ratio
from .written_output import remember, written


def goes_two_ways(block: nn.Module) -> bool:
    """Whether a module is of this kind, over the second dimension of (B, S, H)."""
    return {"A", "B"} <= block._modules.keys() and hasattr(block, "split_position") and getattr(block, "dim", 1) == 1


class TwoWays(RouterCall):
    """Expert 0 is A, expert 1 is B; a row has one of them with weight 1."""

    name = "static_streams"
    method = "forward"

    def site(self, name: str, block: nn.Module) -> Site:
        """A module of this kind; its place is its own name, in attention or feed-forward."""
        last = name.rpartition(".")[2]
        place = "ffn" if last == "ffn" else f"{'attention' if 'attn' in name else 'ffn'}.{last}"
        return Site(name, block, None, None, self, 2, "static", score="none", place=place, expert_names={0: "A", 1: "B"})

    def read(self, site: Site, args: tuple[Any, ...], output: Tensor) -> Record:
        """By place, unless an edit made this output."""
        if (made := written(output)) is not None:
            return Record(site, made.experts, made.weights)
        batch, places = args[0].shape[:2]
        split = int(site.block.split_position)  # type: ignore[arg-type]
        place = torch.arange(places, device=output.device)
        number = (place >= (places if split < 0 else split)).long().repeat(batch)[:, None]
        return Record(site, number, torch.ones_like(number, dtype=output.dtype))

    def write(self, site: Site, args: tuple[Any, ...], output: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Run the other copy where it is wanted, and multiply."""
        before = written(output)
        own = output if before is None else before.own
        was = self.read(site, args, own)
        hidden, made = args[0].reshape(-1, args[0].shape[-1]), own.reshape(-1, own.shape[-1])
        new = made * ratio(weights, was.weights)
        for number in range(2):
            row = ((experts == number) & (was.experts != number)).squeeze(-1)
            if bool(row.any()):
                new[row] = self.expert(site, number, hidden[row]) * weights[row]
        new = new.masked_fill(experts < 0, 0).view_as(output)
        remember(new, experts, weights, own)
        return new

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """One of the two on some rows."""
        return site.block._modules["AB"[number]].forward(hidden)  # type: ignore[union-attr, no-any-return]
