"""PEFT's Lily (Zhong et al. 2024, arXiv 2407.09946; peft 0.21, tuners/lily): a softmax over shared matrices B for every token,
and their mean over the whole batch, padding included, mixes the matrices: one vector of weights for a forward. It stands
inside the layer's forward.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ...routers.base import Record, Site
from ._adapter_site import Inline, active, everyone, place_of


class Lily(Inline):
    """An adapted projection."""

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each projection with one Lily adapter that is active."""
        if len(at_work := active(module, "lily_router")) == 1:
            (adapter, router) = at_work[0]
            count = router.out_features
            site = Site(name, module, None, None, self, count, "dense", "parameters", "batch", place=place_of(name), shared=0)
            site.rule = {"adapter": adapter}
            yield site

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(1, matrices)"""
        layer: Any = site.block
        adapter = site.rule["adapter"]
        low, router = layer.lily_A[adapter], layer.lily_router[adapter]
        each = router.forward(low.forward(args[0].to(low.weight.dtype))).softmax(-1)
        weights = each.reshape(-1, each.shape[-1]).mean(0, keepdim=True)
        return Record(site, everyone(weights), weights)

    def part(self, site: Site, number: int, inputs: tuple[Any, ...]) -> Tensor:
        """x A with one matrix B, scaled."""
        layer: Any = site.block
        adapter = site.rule["adapter"]
        low, matrices = layer.lily_A[adapter], layer.lily_B[adapter].weight
        one = matrices.reshape(site.n_experts, -1, matrices.shape[1])[number]
        return low.forward(inputs[0].to(low.weight.dtype)) @ one * layer.scaling[adapter]  # type: ignore[no-any-return]

    def rest(self, site: Site, inputs: tuple[Any, ...]) -> Tensor:
        """The projection without adapters."""
        layer: Any = site.block
        return layer.base_layer.forward(inputs[0])  # type: ignore[no-any-return]


way = Lily()
