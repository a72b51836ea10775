"""PEFT's Arrow (Ostapenko et al. 2024, arXiv 2405.11157; peft 0.21, tuners/lora/arrow.py): |x · prototype| of every adapter,
the k largest, softmax over them; per projection and token. The decision stands inside the layer's forward.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...routers.base import Record, Site
from ._adapter_site import Inline, active, place_of


class Arrow(Inline):
    """The router of an adapted projection, which also makes what is added to it."""

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each projection whose active adapter is an Arrow router."""
        for adapter, arrow in active(module, "lora_arrow"):
            names = dict(enumerate(arrow.task_adapter_names))
            site = Site(f"{name}.lora_arrow.{adapter}", arrow, None, None, self, len(names), weight_on="delta", shared=0)
            site.expert_names, site.place, site.score = names, place_of(name), "softmax"
            site.rule = {"temperature": arrow.temperature, "general_knowledge_subtracted": arrow.use_gks}
            yield site

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(T, k)"""
        arrow: Any = site.block
        hidden = args[0].reshape(-1, args[0].shape[-1]).to(arrow.prototypes.dtype)
        near = (hidden @ arrow.prototypes.T).abs()
        best, experts = near.topk(arrow.top_k, dim=1)
        kept = torch.full_like(near, float("-inf")).scatter_(1, experts, best)
        weights = (kept / arrow.temperature).softmax(1).gather(1, experts)
        return Record(site, experts, weights, near / arrow.temperature)

    def part(self, site: Site, number: int, inputs: tuple[Any, ...]) -> Tensor:
        """One LoRA, scaled."""
        hidden, low, up, dropout, scaling = inputs
        name = site.expert_names[number]
        made = up[name].forward(low[name].forward(hidden.to(low[name].weight.dtype)))
        return dropout.forward(made * scaling[name])  # type: ignore[no-any-return]


way = Arrow()
