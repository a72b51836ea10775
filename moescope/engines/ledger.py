"""Which token of which request every row of a forward is, until the request ends and is one sequence.

An engine forwards a prompt in chunks, several requests at once, some of whose first tokens it has in a prefix cache; it puts
requests back and computes them again; it forwards guesses of a speculator and drops those that were wrong.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..foreign import one_line
from ..importers._core.captured import Captured
from .buffers import MISSING
from .step import Array, Begun, Request, Step

_FIRST = 64  # places beyond its prompt that a request begins with

CACHED = "{n} tokens were served from the prefix cache: they were not forwarded for their request and have no decision"
TWICE = "{n} tokens were computed again for requests that were put back (preempted): what was executed first is kept"
REJECTED = "{n} rows of guessed tokens that were not taken (speculative decoding) are left out"


class Open:
    """A request that is being served; arrays by place in the sequence, from 0."""

    def __init__(self, request: Request, routers: int, k: int, kind: Any) -> None:
        self.request = request
        size = request.length + _FIRST
        self.experts = np.full((size, routers, k), MISSING, kind)
        self.weights = np.zeros((size, routers, k), np.float32)
        self.ids = np.full(size, -1, np.int64)
        if request.prompt is not None:
            self.ids[: request.length] = request.prompt
        self.there = np.zeros(size, bool)  # forwarded, for this request
        self.end = 0  # of what was forwarded
        self.last = 0  # end of the latest forward, which lies before `end` where a request is computed again
        self.drafts = 0  # at the end, which nobody has confirmed yet
        self.tail: int | None = None  # sampled, not forwarded

    def forwarded(self, start: int, ids: Array, experts: Array, weights: Array, drafts: int) -> tuple[int, int]:
        """Take rows from place `start` on; gives how many were computed again, and how many guesses were dropped.

        Where a place was forwarded before with the same token, all before it being the same, it is computed again; another
        token means that what lies there, and all behind it, was guessed.
        """
        stop, dropped = start + len(ids), 0
        self._grow(stop)
        if self.request.prompt is None:  # it came as embeddings: what stands in its place are no ids
            ids = np.where(np.arange(start, stop) < self.request.length, -1, ids)
        own = slice(start, stop)
        wrong = self.there[own] & (self.ids[own] != ids)
        if wrong.any():
            dropped = self.forget(start + int(np.argmax(wrong)))
        new = ~self.there[own]
        self.ids[own] = ids
        self.experts[own][new], self.weights[own][new] = experts[new], weights[new]
        self.there[own] = True
        self.end, self.last, self.drafts, self.tail = max(self.end, stop), stop, drafts, None
        return int((~new).sum()), dropped

    def taken(self, tokens: Sequence[int]) -> int:
        """What was sampled behind the latest forward; gives how many guesses were dropped."""
        if not len(tokens) or self.last < max(self.end, self.request.length):
            return 0  # of a chunk of the prompt, or of what is computed again
        wrong = self.drafts - (len(tokens) - 1)
        self.drafts, self.tail = 0, int(tokens[-1])
        return self.forget(self.end - wrong) if wrong > 0 else 0

    def forget(self, place: int) -> int:
        """What was forwarded from `place` on; gives how many rows that were."""
        rows = self.end - place
        self.there[place : self.end] = False
        self.experts[place : self.end] = MISSING
        self.end = self.last = place
        return rows

    def closed(self) -> int:
        """The number of its tokens, prompt and answer; what an engine forwarded behind a token that ends it is cut off."""
        length = max(self.end + (self.tail is not None), self.request.length)
        self._grow(length)
        if self.tail is not None and self.end + 1 == length:
            self.ids[self.end] = self.tail
        ends = np.isin(self.ids[self.request.length : length], list(self.request.stops))
        if ends.any():
            length = self.request.length + int(np.argmax(ends)) + 1
            self.end = min(self.end, length)
        return length

    def _grow(self, size: int) -> None:
        if size <= len(self.ids):
            return
        more = max(size, 2 * len(self.ids)) - len(self.ids)
        self.experts = np.concatenate([self.experts, np.full((more, *self.experts.shape[1:]), MISSING, self.experts.dtype)])
        self.weights = np.concatenate([self.weights, np.zeros((more, *self.weights.shape[1:]), np.float32)])
        self.ids = np.concatenate([self.ids, np.full(more, -1, np.int64)])
        self.there = np.concatenate([self.there, np.zeros(more, bool)])


class Ledger:
    """The open requests of an engine. `tallies`: sentences with {n}, and how often. `silent`: forwards in which a router wrote
    nothing, by its place."""

    def __init__(self, routers: int, k: int, experts: int, source: str) -> None:
        self.source = source
        self.tallies: dict[str, int] = {}
        self.silent = np.zeros(routers, np.int64)
        self.steps = 0
        self._k = k
        self._kind = np.int16 if experts < 1 << 15 else np.int32
        self._open: dict[str, Open] = {}
        self._number = 0

    @property
    def names(self) -> list[str]:
        """Of open requests."""
        return list(self._open)

    def begin(self, begun: Begun) -> list[Captured]:
        """What a scheduler says; gives the sequences of requests that ended."""
        ended = [one for name in begun.ended if (one := self.end(name)) is not None]
        for request in begun.new:
            if request.name not in self._open:  # else it was put back, and comes again
                self._open[request.name] = Open(request, len(self.silent), self._k, self._kind)
        return ended

    def step(self, step: Step) -> None:
        """Rows of a forward."""
        experts, weights, beside = step.snapshot.arrays()
        if experts.shape[1]:
            self.steps += 1
            self.silent += (experts == MISSING).all(axis=(1, 2))
        row = 0
        for name, count, drafts in zip(step.requests, step.counts, step.drafts):
            own, row = slice(row, row + count), row + count
            if name in self._open and count:
                start = int(beside["positions"][own.start])
                rows = experts[:, own].transpose(1, 0, 2), weights[:, own].transpose(1, 0, 2)
                twice, dropped = self._open[name].forwarded(start, beside["input_ids"][own], *rows, drafts)
                self._count(TWICE, twice)
                self._count(REJECTED, dropped)

    def sampled(self, name: str, tokens: Sequence[int]) -> None:
        """What was sampled for a request."""
        if name in self._open:
            self._count(REJECTED, self._open[name].taken(tokens))

    def drop(self, name: str) -> bool:
        """Forget a request; whether it was there."""
        return self._open.pop(name, None) is not None

    def end(self, name: str) -> Captured | None:
        """The sequence of a request, which is closed; None where nothing of it was forwarded."""
        one = self._open.pop(name, None)
        if one is None:
            return None
        if one.drafts:
            self._count(REJECTED, one.forget(one.end - one.drafts))
        if not one.there[: one.end].any():
            return None
        length = one.closed()
        start = int(np.argmax(one.there))
        self._count(CACHED, int((~one.there[: one.end]).sum()))
        self._number += 1
        said = one_line(name)  # a client may have chosen it
        return Captured(
            f"request {said}", self.source, self._number - 1, one.experts[start : one.end], one.request.length, length, start,
            said, one.ids[:length], one.weights[start : one.end], by_weight=True, labels=one.request.labels,
        )  # fmt: skip

    def _count(self, sentence: str, n: int) -> None:
        if n:
            self.tallies[sentence] = self.tallies.get(sentence, 0) + n
