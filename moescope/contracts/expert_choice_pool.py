"""Experts that choose tokens, in pools over a sequence (L), a batch (BL) or a batch and all experts (BLE), by count or
threshold.

Two forms. A block that says its `pool_axes` and whose router returns (chosen (.., E) bool, weights (.., E), logits (.., E),
places per expert and pool or None, threshold () or None): EC-DiT, DiffMoE and Expert Race of the zoo. And a block that
chooses inline, as diffusers' NucleusMoELayer does.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ..routers.base import Record, Site
from ..routers.calls import bare
from ..routers.reading.experts_call import child_router
from ..routers.reading.inline_pool import InlinePool, chooses_inline
from ..routers.reading.router_call import RouterCall
from ..routers.rows.pool_record import by_token, spread


class ExpertChoicePool(RouterCall):
    """(chosen, weights, logits, places, threshold) from the router; experts by number."""

    name = "expert_choice_pool"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a block says which axes compete."""
        router, experts, axes = child_router(module), module._modules.get("experts"), getattr(module, "pool_axes", None)
        if router is not None and isinstance(experts, nn.ModuleList) and isinstance(axes, str):
            kind = "global" if "E" in axes else "expert_choice"
            threshold = getattr(bare(router), "expert_threshold", None)
            rule = {} if threshold is None else {"threshold": [round(float(t), 6) for t in threshold.flatten()]}
            factor = getattr(bare(router), "capacity_factor", None)
            yield Site(
                name, module, router, experts, self, len(experts), kind, pool_axes=axes, capacity_factor=factor, rule=rule
            )  # fmt: skip
        elif chooses_inline(module):
            yield inline.site(name, module)

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(T, E) numbers, -1 where an expert did not take the token; the pool is a sequence, or the batch."""
        chosen, weights, logits, places, threshold = output
        pools = len(chosen) if site.pool_axes == "L" else 1
        return by_token(site, chosen, weights, logits, pools, places, threshold)

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Any experts for any token: a pool's counts may change."""
        chosen, was, *rest = output
        taken, new = spread(experts, weights, site.n_experts)
        return taken.view_as(chosen), new.to(was.dtype).view_as(was), *rest

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """A module of the list."""
        return site.experts[number].forward(hidden)  # type: ignore[index, operator, no-any-return]


inline = InlinePool()
contract = ExpertChoicePool()
