"""`vocab_rollup` of a run by counting: how often every expert of every router ran for every vocabulary id."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..physical.column_buffer import numbers
from ..physical.compiled import within
from . import counting_loops
from .from_shard import Rows

Array = np.ndarray[Any, Any]
CELL = 8  # bytes: two counters
_LARGEST = 1 << 24  # an id from which on no table of all ids is kept
_NOTHING = np.zeros(0, np.uint8)


class Words:
    """Counters of the routers `first`, `first` + 1, ... for up to `most` ids; memory is taken as ids come.

    `whole`: everything that was given is counted; `shards`: so many were given. From the first time that something cannot be
    counted, nothing is kept any more.
    """

    def __init__(self, first: int, routers: int, experts: int, most: int) -> None:
        self.first, self.experts, self.most = first, experts, most
        self.whole = experts > 0 and most > 0
        self.known = self.shards = 0
        self._ids, self._place = np.zeros(most, np.uint32), np.zeros(0, np.uint32)
        shape = (routers, most + 1, experts + 1) if self.whole else (0, 0, 0)  # the last of both: none
        self._ran, self._leading = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)

    @classmethod
    def within(cls, memory: int, routers: int, experts: int) -> "Words":
        """Counters of all routers, for as many ids as fit into so many bytes."""
        return cls(0, routers, experts, memory // max(1, CELL * routers * (experts + 1)))

    def add(self, routed: Sequence[Rows] | None, tokens: pa.Table | None) -> None:
        """Count a shard: its routed rows (None: in a form that is not counted) and its tokens."""
        self.shards += 1
        if self.whole and not self._added(routed, tokens):
            self.whole = False
            self._ran = self._leading = np.zeros((0, 0, 0), np.uint32)

    def _added(self, routed: Sequence[Rows] | None, tokens: pa.Table | None) -> bool:
        if routed is None:
            return False
        if not routed:
            return True
        first, words = self._words(tokens) if tokens is not None and len(tokens) else (-1, _NOTHING)
        if first < 0 or not all(within(rows.keys[0], first, first + len(words)) for rows in routed if len(rows.keys[0])):
            return False
        for rows in routed:
            starts, stops = rows.stretches(_NOTHING)
            place = rows.router[starts].astype(np.intp) - self.first
            word = words[rows.keys[0] - np.uint32(first)]
            counting_loops.words(starts, stops, place, word, rows.experts, self._ran, self._leading, int(rows.ranked))
        return True

    def _words(self, tokens: pa.Table) -> tuple[int, Array]:
        """(the first token, or -1 if this cannot be told; the place of every token's id (N,), `most` where it has none)."""
        token = numbers(tokens["token"])
        column = tokens["vocab_id"] if "vocab_id" in tokens.column_names else pa.nulls(len(tokens), pa.uint32())
        places = np.full(len(token), self.most, np.uint32)
        there = np.asarray(column.is_valid())
        if there.any():
            found = self._places(column.drop_null().to_numpy())
            if found is None:
                return -1, _NOTHING
            places[there] = found
        return int(token[0]) if counting_loops.rises(token) else -1, places

    def _places(self, ids: Array) -> Array | None:
        """Where the counters of each id (N,) are; None where there is no room for all of them."""
        if not 0 <= int(ids.min()) <= (largest := int(ids.max())) < _LARGEST:
            return None
        if (short := largest + 1 - len(self._place)) > 0:
            self._place = np.append(self._place, np.full(short, self.most, np.uint32))
        ids = ids.astype(np.intp, copy=False)
        new = np.unique(fresh) if len(fresh := ids[self._place[ids] == self.most]) else fresh
        if self.known + len(new) > self.most:
            return None
        self._place[new] = np.arange(self.known, self.known + len(new), dtype=np.uint32)
        self._ids[self.known : self.known + len(new)] = new
        self.known += len(new)
        return self._place[ids]

    def columns(self) -> Iterator[dict[str, Array]]:
        """The rows of every router that has some, by id and expert."""
        order = np.argsort(self._ids[: self.known])
        for place in range(len(self._ran)):
            ran, leading = (counts[place, order, : self.experts] for counts in (self._ran, self._leading))
            word, expert = np.nonzero(ran)
            if len(word):
                yield {
                    "router": np.full(len(word), self.first + place, np.uint32),
                    "vocab_id": self._ids[order][word],
                    "expert": expert.astype(np.uint16),
                    "assignments": ran[word, expert],
                    "first": leading[word, expert],
                }
