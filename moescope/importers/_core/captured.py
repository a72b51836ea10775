"""What an importer hands over: one sequence with its decisions, or counts; and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError

Array = np.ndarray[Any, Any]


class Fault(InputError):
    """Something captured that cannot be what the model executed; one sentence: what, probably why, what to do."""


@dataclass
class Captured:
    """One sequence of an engine.

    `experts` (rows, routers, k): logical experts in the engine's own order, -1 where nothing was captured, of the tokens from
    place `start` on; `tokens` (T,): vocabulary ids of prompt and answer (-1: not known), or None; `prompt`: how many are the
    prompt's, `length`: how many there are in all. `weights`: as `experts`, or None. `by_weight`: whether the order is that
    of the weights (None: as the model says).
    """

    where: str  # for sentences: "response cmpl-1 (line 3 of a.jsonl)"
    source: str
    row: int
    experts: Array
    prompt: int
    length: int
    start: int = 0
    request: str | None = None
    tokens: Array | None = None
    weights: Array | None = None
    by_weight: bool | None = None
    text: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    named: bool = True  # whether tokens are known by their places in the sequence; else they are mere rows
    document: str | None = None
    run: str | None = None  # of captures that hold several runs
    pieces: list[str] | None = None  # tokens as text, where there are no ids
    varies: bool = False  # whether decisions have different numbers of experts; places that are left are -1, the last ones

    @property
    def rows(self) -> int:
        """Tokens with a decision, captured or not."""
        return len(self.experts)


@dataclass
class Counts:
    """How often experts ran; no token and no decision. `layer`, `expert`, `n` (N,); `labels`: {kind: label} of all of them."""

    where: str
    layer: Array
    expert: Array
    n: Array
    labels: Mapping[str, str] = field(default_factory=dict)
    weight: Array | None = None


@dataclass
class Notes:
    """What is to be said of an import: what it lacks, counted things, what was left out."""

    lacks: dict[str, str] = field(default_factory=dict)  # by kind, a sentence each
    tallies: dict[str, int] = field(default_factory=dict)  # sentence with {n} -> how many
    left_out: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    total: int = 0  # responses looked at

    def lack(self, kind: str, sentence: str) -> None:
        """The captures have none of this kind of thing."""
        self.lacks.setdefault(kind, sentence)

    def count(self, sentence: str, n: int = 1) -> None:
        """Add to a counted sentence, which has `{n}` where the number goes (and `{total}` for that of all responses)."""
        if n:
            self.tallies[sentence] = self.tallies.get(sentence, 0) + n

    def say(self, sentence: str) -> None:
        """Once."""
        if sentence not in self.said:
            self.said.append(sentence)

    def sentences(self) -> list[str]:
        """Everything, in order."""
        counted = [
            sentence.replace("{n}", f"{n:,}").replace("{total}", f"{self.total:,}") for sentence, n in self.tallies.items()
        ]
        most = 20
        left = [f"left out: {one}" for one in self.left_out[:most]]
        more = [f"left out: {len(self.left_out) - most} more"] if len(self.left_out) > most else []
        return [*self.lacks.values(), *self.said, *counted, *left, *more]
