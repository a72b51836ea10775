"""What every place of a stream is, once it is named."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .cached_sequences import CachedSequences


@dataclass(eq=False)
class Named:
    """Of every place (sequences, places) of one stream."""

    live: CachedSequences
    real: np.ndarray  # no padding
    fresh: np.ndarray  # of these, not run before
    sequence: np.ndarray
    position: np.ndarray
    generated: np.ndarray
    unit: np.ndarray  # the number of its sequence among those that began together
    again: np.ndarray | None = None  # keys of the first places, which were run before
    begun: np.ndarray | None = None  # (units,) tokens of every sequence that begins here
    packed: np.ndarray | None = None  # (units,) the row of each, where rows hold several
    names: list[str] = field(default_factory=list)  # of the sequences that begin, where they have any
    rejected: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # keys of drafts that were thrown away

    @property
    def decodes(self) -> bool:
        """Whether a forward runs generated tokens only, beside what it runs again."""
        new = self.fresh if self.fresh.any() else ~self.real
        return bool(new.any()) and bool(self.generated[new].all())

    def first_begun(self) -> int:
        """The number of the first sequence that begins here."""
        return int(self.sequence[0, 0] - self.unit[0, 0])

    def keys(self, take: Callable[[int], int]) -> np.ndarray:
        """(sequences, places) a key of every token: new by `take`, that of before where it is run again, -1 for padding."""
        count = int(self.fresh.sum())
        first = take(count)
        keys = np.full(self.real.shape, -1, np.int64)
        keys[self.fresh] = np.arange(first, first + count)
        if self.again is not None:
            keys[:, : self.again.shape[1]] = self.again
        return keys

    def stored(self, keys: np.ndarray) -> np.ndarray:
        """Keys of the rows that are stored, else -1: beams run a token that they have in common in each of their rows."""
        if self.again is None or not self.live.reordered:
            return keys
        found = np.full(keys.shape, -1, np.int64)
        _, first = np.unique(keys, return_index=True)
        found.reshape(-1)[first] = keys.reshape(-1)[first]
        return found

    def fed(self, keys: np.ndarray, ids: np.ndarray | None, keep: bool) -> None:
        """Keys (sequences, places) were given, -1 for padding; `keep`: they may be run again."""
        new = keys if self.again is None else keys[:, self.again.shape[1] :]
        self.live.fed(new)
        if self.packed is not None and self.begun is not None:
            self.live.counts = self.begun[self.live.unit].astype(np.int64)
        if not keep:
            self.live.whole = None
        elif new.shape[1]:  # else more places than these may be known
            self.live.whole = keys if ids is None else ids, keys, self.sequence
