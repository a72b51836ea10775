"""A router's own word: what it returned before any hook on its output, to be held against what its layer executed."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .. import hooks

Tensors = Callable[[Any], tuple[Tensor, ...]]


class RouterOutput:
    """Hears a router first; `tensors` gives the decision in what it returned."""

    def __init__(self, router: nn.Module, tensors: Tensors) -> None:
        self._tensors = tensors
        self._heard: list[tuple[Any, int | None]] = []
        self.handle = hooks.after(router, self._hear, first=True)

    def _hear(self, _: nn.Module, __: Any, output: Any) -> None:
        self._heard[:] = [(output, _written(self._tensors(output)))]

    def take(self) -> tuple[Any, bool]:
        """The router's output, None if it has not spoken since; and whether its decision was written into since then."""
        if not self._heard:
            return None, False
        output, version = self._heard.pop()
        return output, version != _written(self._tensors(output))


def _written(tensors: tuple[Tensor, ...]) -> int | None:
    """How often tensors were written into so far; None where nobody counts (inference mode)."""
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return sum(tensor._version for tensor in tensors)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, by their memory."""
    return one is other or (one.numel() == other.numel() and one.dtype == other.dtype and one.data_ptr() == other.data_ptr())
