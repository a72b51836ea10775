"""Add vectors to what the experts of a router give, token by token: the edit behind patching an expert's update."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ...contracts import Site
from ...errors import InputError, ModelError
from .base import Edit, Undo


@dataclass(frozen=True, kw_only=True)
class Add(Edit):
    """`updates` (T, H) are added to the routed output of T token places (for text batch × length, padding included)."""

    mode: ClassVar[str] = "add"
    updates: Tensor = field(repr=False)

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """ModelError where the experts' output is no sum over a token's experts."""
        for site in self.where(sites):
            if site.experts is None or site.kind == "soft" or not site.contract.sums_per_token:
                raise ModelError(
                    f"the experts of {site.path} ({site.contract.name}) give no sum per token, so nothing can be added to it"
                )

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """A hook behind the experts of each router."""
        found: list[Undo] = []
        for site in self.where(sites):
            assert site.experts is not None
            found.append(site.experts.register_forward_hook(self._add, prepend=True).remove)
        return found

    def _add(self, _: nn.Module, __: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        if first.numel() != self.updates.numel():
            raise InputError(
                f"{len(self.updates)} updates are given, but the experts work on {first.numel() // first.shape[-1]} token "
                "places: give one for each"
            )
        first = first + self.updates.to(first.device, first.dtype).view_as(first)
        return (first, *output[1:]) if isinstance(output, tuple) else first
