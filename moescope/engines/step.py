"""One forward of an engine's batch, in no engine's words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .buffers import Snapshot

Array = np.ndarray[Any, Any]


@dataclass
class Request:
    """A request that begins: its prompt's ids (None where it came as embeddings), labels that the client gave it, and the
    tokens that end it."""

    name: str
    prompt: Sequence[int] | None
    length: int  # of the prompt
    labels: Mapping[str, str] = field(default_factory=dict)
    stops: frozenset[int] = frozenset()


@dataclass
class Begun:
    """What a scheduler says before a forward: requests that ended, and those that begin, or come again."""

    ended: Sequence[str] = ()
    new: Sequence[Request] = ()


@dataclass
class Step:
    """A forward: `requests` in the order of their rows, `counts` how many rows each has, the last `drafts` of them guessed
    by a speculator. `snapshot.beside` has `input_ids` (rows,) and `positions` (rows,)."""

    requests: Sequence[str]
    counts: Sequence[int]
    drafts: Sequence[int]
    snapshot: Snapshot

    @property
    def rows(self) -> int:
        """Of all requests."""
        return sum(self.counts)


@dataclass
class Sampled:
    """What came of a forward: by request the tokens that were taken (accepted drafts, then one more); a tensor (requests, 1)
    on its way to the host where the engine does not wait for them itself."""

    requests: Sequence[str]
    tokens: Sequence[Sequence[int]] | Snapshot

    def pairs(self) -> list[tuple[str, Sequence[int]]]:
        """(request, tokens)."""
        if isinstance(self.tokens, Snapshot):
            _, _, beside = self.tokens.arrays()
            return list(zip(self.requests, ([t for t in row if t >= 0] for row in beside["tokens"].tolist())))
        return list(zip(self.requests, self.tokens))
