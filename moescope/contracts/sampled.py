"""A mixture of which one component acts, the likeliest or one that is drawn (VDD): all are weighed, one is executed.

A block of this kind says `kind = "sampled"` and `components` (a number), its method `route` returns probabilities (.., K) and
the number of what acts (..; -1: nothing), and `component(number, rows)` is what one of them makes of rows. The weights choose
and multiply nothing.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..routers.base import Record, Site
from ..routers.reading.router_call import RouterCall
from ..routers.rows.pool_record import spread


class Sampled(RouterCall):
    """`route` says all probabilities and what acts."""

    name = "sampled"
    method = "route"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for a block that says so."""
        count = getattr(module, "components", None)
        if getattr(module, "kind", None) == "sampled" and isinstance(count, int):
            yield Site(name, module, None, None, self, count, "sampled", score="softmax")

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """All components of every row with their probabilities, and which of them acts."""
        chances, acts = (output[0].flatten(0, -2), output[1].flatten())
        number = torch.arange(site.n_experts, device=chances.device)
        return Record(
            site, number.expand(len(chances), -1), chances, chances.clamp(min=1e-30).log(), executed=number == acts[:, None]
        )

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """The place that acted still acts, with whatever stands there now; where it is empty, the likeliest of the others."""
        chances, acts = output
        record = Record(site, experts, weights, executed=self.read(site, args, output).executed)
        return spread(experts, weights, site.n_experts)[1].view_as(chances), acting(record).view_as(acts)

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """What the component that acts makes of each row."""
        hidden, acts = inputs[0], acting(record)
        every = torch.stack([site.block.component(n, hidden) for n in range(site.n_experts)], 1)  # type: ignore[operator]
        picked = every[torch.arange(len(hidden), device=hidden.device), acts.clamp(min=0)]
        return picked.float() * (acts >= 0)[:, None]


def acting(record: Record) -> Tensor:
    """(T,) the number of what acts: what stands where something was executed, or the heaviest where nothing stands there.

    -1 where that has no weight: its part was taken out, and nobody takes its place.
    """
    assert record.executed is not None
    filled = record.experts >= 0
    weights = record.weights.masked_fill(~filled, 0)
    place = torch.where((record.executed & filled).any(-1), record.executed.int().argmax(-1), weights.argmax(-1))
    number, weight = (t.gather(-1, place[:, None]).squeeze(-1) for t in (record.experts, weights))
    return number.masked_fill(weight <= 0, -1)


contract = Sampled()
