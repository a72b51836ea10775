"""A router's own word: what it returned before any hook on its output, to be held against what its layer executed."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ... import hooks

Tensors = Callable[[Any], tuple[Tensor, ...]]


class RouterOutput:
    """Hears a router first; `tensors` gives the decision in what it returned, or in what `said` makes of that."""

    def __init__(self, router: nn.Module, tensors: Tensors, said: Callable[[Any], Any] | None = None) -> None:
        self._tensors, self._said = tensors, said
        self._heard: tuple[Any, tuple[Tensor, ...], int | None] | None = None
        self.handle = hooks.after(router, self._hear, first=True)

    def _hear(self, _: nn.Module, __: Any, output: Any) -> None:
        said = output if self._said is None else self._said(output)
        tensors = self._tensors(said)
        self._heard = said, tensors, _written(tensors)

    def take(self) -> tuple[Any, bool]:
        """What the router said, None if it has not spoken since; and whether its decision was written into since then."""
        if self._heard is None:
            return None, False
        said, tensors, version = self._heard
        self._heard = None
        return said, version != _written(tensors)


def _written(tensors: tuple[Tensor, ...]) -> int | None:
    """How often tensors were written into so far; None where nobody counts (inference mode)."""
    total = 0
    for tensor in tensors:  # a loop: this runs at every router of every decode step
        try:
            total += tensor._version
        except RuntimeError:  # of inference mode
            return None
    return total


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, by their memory."""
    return one is other or (one.numel() == other.numel() and one.dtype == other.dtype and one.data_ptr() == other.data_ptr())
