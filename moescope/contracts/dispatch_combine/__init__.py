"""Gates that return two tensors over (token, expert, place in the expert's buffer): dispatch and combine (GShard's einsums).

A block owns `experts` and a `gate` that has `num_gates` and returns (dispatch (B, N, E, C), combine (B, N, E, C), ...): which
place a token has, and with what weight its result comes back. A gate whose output has `chosen` (B, N, k) and `logits` also says
what it wanted; of others the first choice is taken from their logits, and a later choice that has no place is not known. Two
levels (`gate_outer`, `gate_inner`): the inner gate sees buffers of the outer one, and has a site for each outer expert.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...routers.base import Contract, Record, Site
from ...routers.reading.router_call import RouterCall
from ...routers.rows.buffers import Placement, one_expert, placed_anew, record, top_k
from .two_levels import TwoLevels


class Buffers(RouterCall):
    """One gate, whose groups (B) have buffers of their own."""

    name = "dispatch_combine"
    capacity = True
    keeps_drops = True
    sums_per_token = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a gate counts its gates, beside experts."""
        gate, experts = module._modules.get("gate"), module._modules.get("experts")
        count = getattr(gate, "num_gates", None)
        if gate is not None and experts is not None and isinstance(count, int):
            site = Site(name, module, gate, experts, self, count, score="softmax", pool_axes="E")
            site.capacity_factor = _factor(gate)
            yield site

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """What has a place, with its weight; what was wanted and has none is dropped."""
        logits = _logits(args, site.router, output)
        wanted = output.chosen.flatten(0, 1) if hasattr(output, "chosen") else None
        if wanted is None and logits is not None:
            wanted = logits.argmax(-1, keepdim=True)
        return record(site, Placement.of(output[0], output[1]), wanted, logits, top_k(site.router))

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Other places: buffers are longer where an expert gets tokens that it had not."""
        new = placed_anew(output[0], output[1], experts, weights)
        if hasattr(output, "chosen"):
            return output._replace(dispatch=new[0], combine=new[1], chosen=experts.view_as(output.chosen))
        return type(output)((*new, *output[2:]))

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """(n, H) one expert."""
        return one_expert(site.experts, number, hidden)


def _factor(gate: nn.Module) -> float | None:
    found = getattr(gate, "capacity_factor_eval", getattr(gate, "capacity_factor", None))
    return float(found) if isinstance(found, int | float) else None


def _logits(args: tuple[Any, ...], gate: Any, output: Any) -> Tensor | None:
    """(T, E) of gates that say them, or whose weights are known to be all that decides."""
    hidden = args[0].detach()
    if hasattr(output, "logits"):
        found = output.logits.detach()
    elif isinstance(inner := getattr(gate, "to_gates", None), nn.Linear) and not any(args[1:2]):  # noise would be in between
        found = inner.forward(hidden)
    elif torch.is_tensor(getattr(gate, "w_gating", None)):
        found = hidden @ gate.w_gating.detach()
    else:
        return None
    return found.reshape(-1, found.shape[-1])


class DispatchCombine(Contract):
    """Whichever of both a module is."""

    name = "dispatch_combine"
    _forms = Buffers(), TwoLevels()

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """Sites of the form that knows the module."""
        for form in self._forms:
            yield from form.find(name, module)


contract = DispatchCombine()
