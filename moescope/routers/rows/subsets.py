"""Layers that split their tokens between routed blocks: which places of the stream a block's rows are.

ERNIE 4.5 VL routes text and vision tokens apart; the layer that owns both blocks is told `moe_mm_token_type_ids` (B, S), where
0 is text.
"""

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ..base import Site
from ..calls import signature

_TYPES = "moe_mm_token_type_ids"


class Subset:
    """Listens to the parent of a block that sees some of the tokens; to nobody where a block sees all."""

    def __init__(self, site: Site) -> None:
        self._vision = site.name.rpartition(".")[2].startswith("vision")
        self._types: Tensor | None = None
        self.handles: list[RemovableHandle] = []
        names = list(signature(site.parent).parameters) if site.parent is not None else []
        if site.parent is not None and _TYPES in names and site.name.endswith("_moe"):
            self._place = names.index(_TYPES)
            self.handles = [hooks.before(site.parent, self._before, kwargs=True)]

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._types = args[self._place] if len(args) > self._place else kwargs.get(_TYPES)

    def rows(self) -> Tensor | None:
        """(T,) places in the flattened stream of the tokens that this block is about to see; None for all."""
        if self._types is None:
            return None
        vision = self._types.bool().reshape(-1)
        return (vision if self._vision else ~vision).nonzero()[:, 0]
