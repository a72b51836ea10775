"""Sums of activations that can be taken back: of a forward or batch that is not stored nothing stays in them."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from ...statistics.moments import States

Point: TypeAlias = Literal["forward", "hand-over", "batch"]
_POINTS: tuple[Point, ...] = ("forward", "hand-over", "batch")
Where: TypeAlias = tuple[int | None, int | None, str, int | None]
"""(router number, expert or None, stream, iteration): a router's, or a repeated module's with its firing number"""


class ActivationSums:
    """Importance by router: (experts, 4) of assignments, Σ‖f‖, Σ g‖f‖ and the largest |f|; states by where they were seen.

    The points that can be gone back to are the begin of the open forward, the last hand-over to the writing thread, and the
    last batch that is whole: each remembers what has changed since, as it was then. So sums take twice their memory at most.
    """

    def __init__(self) -> None:
        self.importance: dict[int, np.ndarray] = {}
        self.states: dict[Where, States] = {}
        self._before: dict[Point, dict[Any, Any]] = {point: {} for point in _POINTS}

    def reach(self, point: Point) -> None:
        """From now on this is the point: what was summed up before it stays."""
        for inner in _POINTS[: _POINTS.index(point) + 1]:
            self._before[inner] = {}

    def take_back(self, point: Point) -> None:
        """Forget what was summed up since the point."""
        for key, value in self._before[point].items():
            kept: dict[Any, Any] = self.states if isinstance(key, tuple) else self.importance
            if value is None:
                kept.pop(key, None)
            else:
                kept[key] = value
        self.reach(point)

    def weigh(self, router: int, experts: int, expert: int, made: Tensor, gate: Tensor, times: Tensor) -> None:
        """Add (tokens, width) outputs of one of so many experts, their weights (tokens,), and how often each token chose it."""
        self._remember(router, self.importance, np.copy)
        sums = self.importance.setdefault(router, np.zeros((experts, 4)))
        norm = made.norm(dim=-1)
        sums[expert, :3] += [int(times.sum()), float((times * norm).sum()), float((gate * norm).sum())]
        sums[expert, 3] = max(sums[expert, 3], float(made.abs().max()))

    def see(self, where: Where, states: Tensor, groups: np.ndarray) -> None:
        """Add (tokens, width) states and the sequence of each token."""
        self._remember(where, self.states, States.copy)
        if where not in self.states:
            self.states[where] = States(covariance=where[1] is None)
        self.states[where].update(states.float().cpu().numpy(), groups)

    def _remember(self, key: Any, kept: dict[Any, Any], copy: Callable[[Any], Any]) -> None:
        missing = [before for before in self._before.values() if key not in before]
        if missing:
            value = copy(kept[key]) if key in kept else None
            for before in missing:
                before[key] = value
