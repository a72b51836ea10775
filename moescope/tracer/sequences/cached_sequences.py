"""Sequences that later calls may go on with: what a key–value cache stands for, row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_KEPT = 512  # places remembered for drafts that are cropped off


@dataclass
class CachedSequences:
    """One row per sequence of a batch (or per beam)."""

    sequences: np.ndarray
    units: int  # sequences that began together: one a row, or several
    unit: np.ndarray  # the number of each row's among them
    counts: np.ndarray = field(init=False)  # tokens so far
    ended: np.ndarray = field(init=False)  # a token that ends it was generated; what is fed for it afterwards is padding
    last: np.ndarray = field(init=False)  # key of the last token of the row's own hypothesis
    said: Any = None  # the batch that `infos` came with
    infos: list[Any] = field(default_factory=list)  # what is known of each row beside its tokens
    since: np.ndarray = field(init=False)  # the tokens that came before the info's own
    until: np.ndarray = field(init=False)  # and those before the first of which it says no word
    decoding: np.ndarray = field(init=False)  # the last token was generated
    awaits: np.ndarray = field(init=False)  # the token that follows was chosen within generate
    heard: list[Any] = field(init=False)  # where each row is in what it makes (models.chat.Following), None at its beginning
    lost: bool = False  # drafts were taken back, so nobody knows
    reordered: bool = False
    places: int = 0  # fed so far, padding included
    whole: tuple[np.ndarray, ...] | None = None  # (rows, places) ids, keys and sequences of tokens, where there is no cache
    _recent: list[np.ndarray] = field(init=False)  # (rows, places) of late, -1 for padding

    def __post_init__(self) -> None:
        size = len(self.sequences)
        self.counts = np.zeros(size, np.int64)
        self.ended, self.decoding, self.awaits = (np.zeros(size, bool) for _ in range(3))
        self.since, self.until = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.heard = [None] * size
        self.last, self._recent = np.full(size, -1, np.int64), [np.empty((size, 0), np.int64)]

    def tell(self, said: Any, infos: Sequence[Any]) -> None:
        """What is fed from here on is what each row's info is of."""
        self.said, self.infos, self.heard = said, list(infos), [None] * len(infos)
        self.since = self.counts.copy()
        self.until = self.counts + [info.told for info in infos]

    def fed(self, keys: np.ndarray) -> None:
        """(rows, places) token keys were fed, -1 for padding."""
        self._recent.append(keys)
        if len(self._recent) > _KEPT:
            self._together()
        self.places += keys.shape[1]
        real = keys >= 0
        self.counts += real.sum(1)
        if keys.shape[1] and real[:, -1].all():
            self.last = keys[:, -1].copy()
        else:
            self._end()

    def _together(self) -> np.ndarray:
        """(rows, places) what was fed of late, as one array."""
        if len(self._recent) > 1:
            self._recent = [np.concatenate(self._recent, 1)[:, -_KEPT:]]
        return self._recent[0]

    def _end(self) -> None:
        """The last real token of each row."""
        keys = self._together()
        real = keys >= 0
        if not real.size:
            return
        place = real.shape[1] - 1 - np.argmax(real[:, ::-1], 1)
        self.last = np.where(real.any(1), keys[np.arange(len(place)), place], self.last)

    def happened(self, events: list[tuple[str, Any]], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Follow what was done to the cache; gives the keys of tokens that were cropped off (rejected drafts)."""
        cropped = [np.empty(0, np.int64)]
        for number, (event, value) in enumerate(events):
            if event == "crop":
                cropped.append(self._crop(int(arrays.get(f"event{number}", value))))
            elif event == "repeat":  # rows that go on apart from what they have in common
                self._take(np.repeat(np.arange(len(self.sequences)), int(value)), True)
                self.reordered = True
            else:
                self._take(np.asarray(arrays.get(f"event{number}", value)).reshape(-1), event == "select")
        return np.concatenate(cropped)

    def _take(self, rows: np.ndarray, select: bool) -> None:
        if select:
            self.sequences, self.unit = self.sequences[rows], self.unit[rows]
        elif not np.array_equal(rows, np.arange(len(rows))):
            self.reordered = True
        self.counts, self.ended, self.last = (a[rows] for a in (self.counts, self.ended, self.last))
        self.since, self.until = self.since[rows], self.until[rows]
        self.infos = [self.infos[row] for row in rows] if self.infos else []
        self.heard = [self.heard[row] for row in rows] if self.infos else []
        self.decoding, self.awaits = self.decoding[rows], self.awaits[rows]
        self._recent = [self._together()[rows]]
        self.whole = None if self.whole is None else tuple(array[rows] for array in self.whole)

    def matched(self, ids: np.ndarray) -> int:
        """How many places of ids (rows, places) were run before, 0 if not all were; follows rows that changed places."""
        if self.whole is None or (count := self.whole[0].shape[1]) >= ids.shape[1]:
            return 0
        same = (self.whole[0][None] == ids[:, None, :count]).all(-1)  # (now, before)
        if not same.any(1).all():
            return 0
        rows = np.where(same.diagonal(), np.arange(len(same)), same.argmax(1))
        self._take(rows, False)
        return count

    def _crop(self, length: int) -> np.ndarray:
        """Drop -length places; a positive length (older Transformers) is what is kept, 0 does nothing."""
        drop = -length if length <= 0 else self.places - length
        if drop <= 0:
            return np.empty(0, np.int64)
        keys, self.lost = self._together(), True
        gone, self._recent = keys[:, -drop:], [keys[:, :-drop]]
        self.places -= drop
        self.counts -= (gone >= 0).sum(1)
        self.until = np.minimum(self.until, self.counts)  # what follows is another text
        self._end()
        return gone[gone >= 0]
