"""PEFT's Poly (Ponti et al. 2022, arXiv 2202.13914; peft 0.21, tuners/poly): each task has a weight for every skill, normalized
sigmoids (sampled in training), and it mixes the parameters: x (Σ w A) (Σ w B) / r. A decision is one of a sequence, whose
task is given.

With several splits of the features every split has weights of its own; its skills are numbered on, split by split.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...routers.base import Record, Site
from ._adapter_site import AdapterSite, active, everyone, place_of


class Poly(AdapterSite):
    """The router of an adapted projection."""

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each projection with a Poly adapter that is active."""
        for adapter, router in active(module, "poly_router"):
            splits, skills = router.n_splits, router.n_skills
            site = Site(name, module, router, None, self, splits * skills, "dense", "parameters", "sequence", shared=0)
            site.place, site.score, site.rule = place_of(name), "sigmoid", {"splits": splits, "adapter": adapter}
            if splits > 1:
                site.expert_names = {q * skills + s: f"split {q} skill {s}" for q in range(splits) for s in range(skills)}
            yield site

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(B, splits · skills)"""
        router: Any = site.router
        weights = output.flatten(1)
        tasks = args[0].to(router.module_logits.device)
        logits = router.module_logits[tasks].detach() if router.n_splits == 1 and not router.training else None
        return Record(site, everyone(weights), weights, logits)

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """(B, splits, skills)"""
        dense = torch.zeros_like(output).flatten(1)
        return dense.scatter_add(1, experts.clamp(min=0), weights.masked_fill(experts < 0, 0).to(dense.dtype)).view_as(output)

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Parameters mixed apart, then applied; a sum over skills is something else."""
        layer: Any = site.block
        adapter, hidden = site.rule["adapter"], inputs[0]
        first, second = layer.poly_lora_A[adapter], layer.poly_lora_B[adapter]
        mixed = torch.zeros(len(record.weights), site.n_experts, device=hidden.device, dtype=first.dtype)
        given = record.weights.masked_fill(record.experts < 0, 0).to(first.dtype)
        mixed = mixed.scatter_add(1, record.experts.clamp(min=0), given).unflatten(1, first.shape[:2])
        low = torch.einsum("bqs,qsdr->bqdr", mixed, first).flatten(1, 2)
        up = torch.einsum("bqs,qsrd->brqd", mixed, second).flatten(2)
        made = hidden.to(first.dtype) @ low @ up / layer.r[adapter]
        return layer.base_layer.forward(hidden) + made  # type: ignore[no-any-return]


way = Poly()
