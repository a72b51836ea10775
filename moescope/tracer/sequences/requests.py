"""Continuous batching (`generate_batch`): which request every place of a row is of, and which of its tokens.

A row holds pieces of several requests: whole prompts, chunks of prompts, one token of each that goes on. The manager that fills
it knows them; it is found on the Python stack, so that the model is not touched. A request that it throws out of its cache is
run again from its beginning: those are the same tokens. What several requests have in common (the beginning of their prompts, a
prompt with several answers) may be run once: the others have these tokens too, without decisions.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cached_sequences import CachedSequences
from .named import Named

ARGUMENT = "write_index"  # what only a forward of continuous batching is given
_DEPTH = 60  # Python frames that are looked through
_FILE = "continuous_batching/model_runner.py"
_KEPT = 4096  # requests that are remembered


@dataclass(frozen=True)
class Piece:
    """Tokens of a request in a row: `length` of them, behind `past` others; its prompt has `prompt` tokens.

    again: it lost its place in the cache, and what it had made is now run as if it were prompt. missing: ids of those
    right before that no forward was seen to run.
    """

    request: str
    past: int
    length: int
    prompt: int
    again: bool
    missing: Sequence[int] = ()


@dataclass
class Known:
    """A request: its sequence, and the keys of its tokens by position (-1: none yet)."""

    sequence: int
    keys: list[int]


def batch_around() -> tuple[Any, list[Any]] | None:
    """Who runs the innermost forward of continuous batching, and the requests in its row, in order; None if nobody says."""
    here = sys._getframe(1)
    for _ in range(_DEPTH):
        if here is None:
            return None
        if here.f_code.co_filename.replace("\\", "/").endswith(_FILE) and "self" in here.f_locals:
            runner = here.f_locals["self"]
            held = getattr(runner, "inputs_and_outputs", None)
            pairs: Any = getattr(held, "io_pairs", None)  # where one batch is made ready while another runs
            batch = getattr(pairs[held.current_pair].host_io if pairs else held, "requests_in_batch", None)  # type: ignore[union-attr]
            return None if batch is None else (runner, batch)
        here = here.f_back  # type: ignore[assignment]
    return None


def pieces(batch: list[Any], seen: dict[str, int]) -> list[Piece]:
    """What a row holds; `seen`: how many tokens of each request were seen to run, which grows."""
    return [_piece(one.state, one.query_length, seen) for one in batch]


def _piece(state: Any, length: int, seen: dict[str, int]) -> Piece:
    name, past, own = state.request_id, state.position_offset - length, state._true_initial_tokens
    reached = seen.get(name, 0)
    missing = (state.initial_tokens + state.generated_tokens)[reached:past] if past > reached else ()
    seen[name] = past + length
    return Piece(name, past, length, own or len(state.initial_tokens), bool(own), missing)


@dataclass(eq=False)
class OfRequests(Named):
    """Places of a row of requests; `known` (1, places): keys of tokens that ran before."""

    owners: list[Known] = field(default_factory=list)
    known: np.ndarray = field(default_factory=lambda: np.empty((1, 0), np.int64))
    first: int = 0  # sequence of the first that begins
    unrun: list[tuple[Known, Piece]] = field(default_factory=list)  # those with tokens that were run elsewhere, or unseen

    def first_begun(self) -> int:
        """The number of the first sequence that begins here."""
        return self.first

    def keys(self, take: Callable[[int], int]) -> np.ndarray:
        """(1, places) a key of every token: new by `take`, that of before where it is run again, -1 for padding."""
        count = int(self.fresh.sum())
        found = self.known.copy()
        found[self.fresh] = np.arange(first := take(count), first + count)
        return found

    def stored(self, keys: np.ndarray) -> np.ndarray:
        """All of them."""
        return keys

    def fed(self, keys: np.ndarray, ids: np.ndarray | None, keep: bool) -> None:
        """Keys (1, places) were given, -1 for padding."""
        for place, (key, at) in enumerate(zip(keys[0].tolist(), self.position[0].tolist())):
            if key >= 0:
                owner = self.owners[self.unit[0, place]].keys
                owner[at : at + 1] = [key]


class Requests:
    """Names rows of continuous batching; `take` gives so many new numbers of sequences."""

    def __init__(self, take: Callable[[int], int]) -> None:
        self._take = take
        self._known: dict[tuple[int, str], Known] = {}
        self._again = self._shared = 0

    def name(self, manager: int, row: list[Piece], places: int) -> OfRequests:
        """The places of a row that `manager` filled."""
        begin = [p for p in row if self._begins(manager, p)]
        first = self._take(len(begin)) if begin else 0
        for number, piece in enumerate(begin):
            self._known.pop((manager, piece.request), None)
            self._known[manager, piece.request] = Known(first + number, [])
            self._shared += piece.past
        owners = [self._known.pop((manager, p.request)) for p in row]
        self._known |= {(manager, p.request): owner for p, owner in zip(row, owners)}
        self._known = dict(list(self._known.items())[-_KEPT:])
        for p, owner in zip(row, owners):
            owner.keys += [-1] * (p.past - len(owner.keys))
        named = _laid(row, owners, places)
        self._again += int((named.known >= 0).sum())
        named.names, named.first = [p.request for p in begin], first
        named.unrun = [(owner, p) for p, owner in zip(row, owners) if p.missing]
        if begin:
            named.begun, named.packed = np.array([p.prompt for p in begin]), np.zeros(len(begin), np.int64)
        return named

    def _begins(self, manager: int, piece: Piece) -> bool:
        """Whether a request is new: nobody knows it, or its name is used again."""
        known = self._known.get((manager, piece.request))
        return known is None or (piece.past == 0 and bool(known.keys) and not piece.again)

    def notes(self) -> list[str]:
        """Sentences on what was run more than once, and once for several."""
        found = []
        if self._again:
            found.append(
                f"{self._again} tokens of continuous batching (generate_batch) were run again, after their request had lost "
                "its place in the cache: their decisions are stored in each forward, under the same tokens"
            )
        if self._shared:
            found.append(
                f"{self._shared} tokens of continuous batching (generate_batch) were run once for several requests: their "
                "decisions are stored with the first of them, and the others have these tokens without decisions"
            )
        return found


def _laid(row: list[Piece], owners: list[Known], places: int) -> OfRequests:
    """Pieces one behind the other, and padding."""
    unit = np.repeat(np.arange(len(row)), [p.length for p in row])
    position = np.concatenate([np.arange(p.past, p.past + p.length) for p in row])
    columns = {
        "real": np.ones(len(unit), bool),
        "sequence": np.array([owner.sequence for owner in owners], np.int64)[unit],
        "position": position,
        "generated": position >= np.array([p.prompt for p in row], np.int64)[unit],
        "unit": unit,
        "known": np.array([k[at] if at < len(k := owners[n].keys) else -1 for n, at in zip(unit, position)], np.int64),
    }
    more = places - len(unit)
    full: dict[str, Any] = {
        name: np.pad(a, (0, more), constant_values=-1 if name == "known" else 0)[None] for name, a in columns.items()
    }
    live = CachedSequences(full["sequence"][:, 0], 0, np.zeros(1, np.int64))
    return OfRequests(live, fresh=full["real"] & (full["known"] < 0), owners=owners, **full)
