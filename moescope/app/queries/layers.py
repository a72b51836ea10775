"""Routers as readers of a page know them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One router, as a reader names it."""

    label: str  # "layer 3", "encoder 1"
    router: int
    layer: int
    stack: str
    experts: int
    top_k: int | None
    group: str = ""  # the stack, or "decoder attention" where a layer of it has two routers: see moescope.store.groups

    @property
    def even(self) -> float:
        """Share of an expert when the load is even."""
        return 1 / max(self.experts, 1)
