"""Modules that say so themselves: a dictionary `mixture`, and methods `route`, `part` and `rest`, as those of
moescope.models.zoo.

`mixture`: experts (how many are routed) and, where they differ from a token's dense weights on deltas, kind, weight_on, unit,
names, roles, rule. `route(*inputs)` gives an object with experts and weights (R, k), logits (R, E) or None; soft ones also
with dispatch (R, k), rows (R,) and pool (R,). What it returns is what is executed. `part(number, *inputs)` is one adapter,
`rest(*inputs)` what stands beside all.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...routers.base import Record, Site
from ._adapter_site import AdapterSite, place_of


class Own(AdapterSite):
    """The decision is what the module's `route` returns."""

    method = "route"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each such module."""
        said: Any = getattr(module, "mixture", None)
        if not isinstance(said, dict) or not all(callable(getattr(module, m, None)) for m in ("route", "part", "rest")):
            return
        site = Site(name, module, None, None, self, said["experts"], said.get("kind", "dense"), said.get("weight_on", "delta"))
        site.unit, site.place, site.shared = said.get("unit", "token"), said.get("place") or place_of(name), 0
        site.expert_names, site.roles = dict(said.get("names", {})), dict(said.get("roles", {}))
        site.rule, site.score = dict(said.get("rule", {})), said.get("score")
        yield site

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """As it is said."""
        record = Record(site, output.experts, output.weights)
        for name in ("logits", "dispatch", "rows", "pool"):
            setattr(record, name, getattr(output, name, None))
        return record

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Other experts and weights in it."""
        return output._replace(experts=experts, weights=weights)

    def part(self, site: Site, number: int, inputs: tuple[Any, ...]) -> Tensor:
        """As the module says."""
        block: Any = site.block
        return block.part(number, *inputs)  # type: ignore[no-any-return]

    def rest(self, site: Site, inputs: tuple[Any, ...]) -> Tensor | float:
        """As the module says."""
        block: Any = site.block
        return block.rest(*inputs)  # type: ignore[no-any-return]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """A soft mixture's experts each take one mean of their pool's rows, and every row gets its share of what they make."""
        if record.dispatch is None:
            return super().recompute(site, inputs, record)
        flat = inputs[0].flatten(0, 1)
        assert record.rows is not None
        assert record.pool is not None
        rows, pool, pools = record.rows, record.pool, len(inputs[0])
        total: Tensor | None = None
        for number in range(site.n_experts):
            share = flat[rows] * record.dispatch[:, number, None]
            mean = torch.zeros(pools, flat.shape[-1], device=flat.device).index_add_(0, pool, share.float())
            made = self.part(site, number, (mean.to(flat.dtype),))[pool] * record.weights[:, number, None]
            total = made.new_zeros(len(flat), made.shape[-1]) if total is None else total
            total.index_add_(0, rows, made)
        assert total is not None
        return total


way = Own()
