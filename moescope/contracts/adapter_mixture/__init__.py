"""Mixtures of adapters: a site for each adapted projection, with the adapters as its experts.

PEFT's X-LoRA, Arrow, Poly and Lily, the package mixlora, and modules that say what they are themselves (LoRAMoE, MoLE, both
MoELoRAs, MoV, MoCLE, Omni-SMoLA and AdaMix of moescope.models.zoo). How each speaks is a file of this folder; its sites bring
that file's object as their contract.
"""

from collections.abc import Iterable

from torch import nn

from ...routers.base import Contract, Site
from . import arrow, lily, mixlora, own, poly, xlora
from ._adapter_site import AdapterSite


class AdapterMixture(Contract):
    """Asks every way in turn."""

    name = AdapterSite.name

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """The sites of the first way that knows the module."""
        return next((found for way in WAYS if (found := list(way.find(name, module)))), [])


WAYS: list[AdapterSite] = [module.way for module in (own, xlora, arrow, poly, lily, mixlora)]
contract = AdapterMixture()
