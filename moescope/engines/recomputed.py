"""Decisions made again from the logits that their routers were given: what is recorded is what the model's rule gives."""

from collections.abc import Sequence

import numpy as np

from ..routers.rule import NEAR, Rule, disagreement
from .buffers import MISSING
from .step import Array

ALL = 1 << 16  # decisions, of all routers, that are made again one by one; then those of some forwards
_SOME = 64  # of so many forwards one


class Recomputation:
    """`rules` by router, None where a router's rule is not one that is known; `near`: how exact the engine's arithmetic is."""

    def __init__(self, rules: Sequence[Rule | None], near: float = NEAR) -> None:
        self.rules, self.near = list(rules), max(near, NEAR)
        self.count = 0  # decisions that were made again
        self._asked = self._forwards = 0

    @property
    def known(self) -> bool:
        """Whether there is a router whose decisions can be made again."""
        return any(rule is not None for rule in self.rules)

    def sentences(self) -> list[str]:
        """What is to be said of it."""
        said = ", ".join(dict.fromkeys(str(rule) for rule in self.rules if rule is not None))
        found = [
            f"{self.count:,} decisions were made again from the logits that their routers were given ({said}): the same "
            "experts and weights"
        ]
        lacking = sum(rule is None for rule in self.rules)
        unknown = [
            f"how {lacking} of {len(self.rules)} routers come from logits to experts is not known: theirs were not made again"
        ]
        return (found if self.count else []) + (unknown if lacking else [])

    def due(self, rows: int) -> bool:
        """Whether the logits of the next forward, of so many rows, are wanted."""
        self._forwards += 1
        if not self.known or (self._asked > ALL and self._forwards % _SOME):
            return False
        self._asked += rows * len(self.rules)
        return True

    def wrong(self, experts: Array, weights: Array, logits: Array) -> tuple[int, str] | None:
        """The first router, by its place, whose experts (routers, T, k) or weights are not those of its logits (routers, up to
        T, E), and in which way. Rows that a router did not write, or whose logits are no numbers, are passed over."""
        rows = logits.shape[1]
        for place, rule in enumerate(self.rules):
            if rule is None:
                continue
            there = (experts[place, :rows] != MISSING).all(-1) & np.isfinite(logits[place]).all(-1)
            if not there.any():
                continue
            given, chosen, weighed = (part[place, :rows][there] for part in (logits, experts, weights))
            if (why := disagreement(rule, given, chosen, weighed, self.near)) is not None:
                return place, why
            self.count += int(there.sum())
        return None
