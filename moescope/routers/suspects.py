"""Modules that look routed although no contract has claimed them: better refused than left out of a trace."""

from collections.abc import Iterable

from torch import nn

from .base import Site
from .calls import bare


def suspects(model: nn.Module, sites: list[Site]) -> list[str]:
    """Paths of modules that own `experts` beside a router or gate, or several modules called experts, outside every site."""
    claimed = {site.name for site in sites}
    blocks = {id(m) for site in sites for m in _inside(site)} | {id(site.parent) for site in sites}
    above = {name.rsplit(".", i)[0] for name in claimed for i in range(1, name.count(".") + 1)}
    looks = [
        name
        for name, m in model.named_modules()
        if id(m) not in blocks and name not in above and _routed(m) and "_original_component" not in m._modules
    ]
    return [name for name in looks if name not in claimed]


def _inside(site: Site) -> Iterable[nn.Module]:
    """What a site answers for: all of its block, but not the layers that it runs or leaves out as a whole."""
    return [site.block] if site.kind == "depth" else site.block.modules()


def _routed(module: nn.Module) -> bool:
    children = dict(module.named_children())
    if "_original_component" in children:  # a TransformerLens bridge around the module that is meant
        return False
    decides = any(name in children for name in ("gate", "router", "gating")) or any(
        type(bare(m)).__name__.endswith(("Router", "Gating", "TopKGate")) for m in children.values()
    )
    return decides and "experts" in children
