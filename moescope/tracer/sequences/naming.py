"""Which token of which sequence every place of a stream is, forward after forward, from what stream and arrays say.

The one rule that names rows for the store (token_rows.py) and for what is summed up on the way (observers.py): padding,
documents packed in a row, caches that go on, prompt and generated tokens, what is fed after a sequence has ended, tokens run
again.
"""

from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import numpy as np

from .cached_sequences import CachedSequences
from .generating import Call
from .image_patches import in_blocks
from .layouts import placed
from .named import Named
from .packing import documents
from .padding import real_places
from .requests import Requests
from .streams import Stream

_KEPT = 64  # generations that are remembered
_FEW = 8  # ids that are compared one by one
_NONE = np.empty(0, np.int64)


class Sequences:
    """Sequences by generation; `take` gives so many new numbers."""

    def __init__(self, take: Callable[[int], int], stops: tuple[set[int], set[int]]) -> None:
        self._take, self._requests = take, Requests(take)
        self._stops = _arrays(stops)
        self._only_pads = np.setdiff1d(*reversed(self._stops))
        self._live: dict[int, CachedSequences] = {}
        self._prompts: WeakKeyDictionary[Call, dict[int, int]] = WeakKeyDictionary()  # by generation: where its prompt ends
        self._unsure = 0  # forwards of single ids that the caller may have sampled
        self._again = 0  # forwards that ran earlier tokens again

    def name(self, stream: Stream, arrays: Mapping[str, np.ndarray]) -> Named:
        """Name the places of a stream; `arrays` are its ids, facts and events. Call once a forward, then `fed`."""
        if stream.requests is not None:
            return self._requests.name(stream.generation, stream.requests, stream.shape[1])
        ids = arrays.get("ids")
        past = int(arrays["past"]) if "past" in arrays else stream.past
        live = self._live.get(stream.generation) if stream.continues else None
        rejected = _NONE if live is None else live.happened(stream.events, arrays)
        again = 0
        if live is not None and (len(live.sequences) != stream.shape[0] or (past == 0 and not stream.reruns)):
            live = None
        if live is not None and stream.reruns:
            again = live.matched(ids) if ids is not None else _seen(live, stream)
            live = live if again else None
        trailing = None if again else stream.trailing_pad  # a step of generate adds padding only behind an end: see _mark
        real = real_places(stream.shape, ids, arrays, trailing, self._only_pads)
        if stream.layout is not None:
            real &= placed(stream.layout, stream.shape[0], arrays).kind >= 0
        named = self._begin(stream, real, arrays) if live is None else _go_on(live, real, again)
        self._again += bool(again) and ids is not None
        stream.units, named.rejected = named.live.units, rejected
        start = 0 if stream.reruns else named.live.places if past is None else past
        self._mark(named, stream, arrays, start, again, live is not None)
        return named

    def notes(self) -> list[str]:
        """Sentences on what could not be told from the ids, and on what was run more than once."""
        found = self._requests.notes()
        if self._unsure:
            found.append(
                f"{self._unsure} forwards outside generate went on with a cache by single tokens that are not the model's "
                "first choice, so these were stored as prompt; if a loop of yours sampled them, run it inside `with "
                "tracer.generating():`"
            )
        if self._again:
            found.append(
                f"{self._again} forwards of generate had no cache and ran earlier tokens again: their decisions are stored in "
                "each forward, under the same tokens (once where beams share them), so decisions count runs, not tokens"
            )
        return found

    def _begin(self, stream: Stream, real: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Named:
        starts = None
        if stream.kind == "image":
            starts = _images(stream, arrays)
        elif stream.kind == "text":
            real, starts = documents(stream.shape, real, arrays)
        rows = np.arange(len(real))
        unit = np.broadcast_to(rows[:, None], real.shape)
        if starts is not None:
            unit = (np.cumsum(starts) - 1).clip(0).reshape(real.shape)
            rows = np.nonzero(starts)[0]
        begun = np.bincount(unit[real], minlength=len(rows))
        first = self._take(len(rows))
        before = np.cumsum(begun) - begun
        position = (np.cumsum(real) - 1).reshape(real.shape) - before[unit]
        live = CachedSequences(first + unit[:, -1], len(rows), unit[:, -1])
        self._live = dict(list(self._live.items())[-_KEPT:]) | {stream.generation: live}
        packed = rows if starts is not None else None
        return Named(live, real, real.copy(), first + unit, position, np.zeros(real.shape, bool), unit, None, begun, packed)

    def _mark(
        self, named: Named, stream: Stream, arrays: Mapping[str, np.ndarray], start: int, again: int, went_on: bool
    ) -> None:
        """What was generated, and what is fed for a sequence that has ended."""
        ids, live = arrays.get("ids"), named.live
        if stream.kind != "text":
            return
        if stream.call is not None:
            self._by_call(named, stream, arrays, start, went_on)
        elif went_on:
            self._by_choice(named, stream, arrays)
        if went_on and ids is not None and ids.shape[1] - again == 1:
            one, made = ids[:, -1], named.generated[:, -1]
            ends, pads = self._stops if stream.call is None else _arrays(stream.call.stops)
            live.ended &= among(one, pads)
            named.real[:, -1] &= ~live.ended
            named.fresh[:, -1] &= ~live.ended
            live.ended |= made & among(one, ends)
        elif not again:
            live.ended[:] = False
        live.decoding = named.generated[:, -1] & named.real[:, -1]

    def _by_call(self, named: Named, stream: Stream, arrays: Mapping[str, np.ndarray], start: int, went_on: bool) -> None:
        call, live, places = stream.call, named.live, named.real.shape[1]
        assert call is not None
        if call.prompt is None:  # a way of generating that does not say
            named.generated[:] = went_on
            return
        ends = self._prompts.setdefault(call, {})
        first_seen = stream.generation not in ends
        end = ends.setdefault(stream.generation, call.prompt if call.whole or not start else start + call.prompt)
        named.generated[:, max(end - start, 0) :] = True
        if first_seen and went_on and "chosen" in arrays:
            named.generated[:, 0] |= live.awaits & arrays["chosen"]
        live.awaits = (start + places >= end) & ~live.ended

    def _by_choice(self, named: Named, stream: Stream, arrays: Mapping[str, np.ndarray]) -> None:
        live, chosen = named.live, arrays.get("chosen")
        live.awaits = np.zeros(len(named.real), bool)
        if stream.made:
            named.generated[:] = True
        elif stream.known:
            return
        elif named.real.shape[1] > 1:
            named.generated[:, 0] = False if chosen is None else live.decoding & chosen
        else:
            named.generated[:, 0] = False if chosen is None else chosen
            over = live.ended & (among(arrays["ids"][:, 0], self._stops[1]) if "ids" in arrays else True)
            self._unsure += bool((named.real[:, 0] & ~named.generated[:, 0] & ~over).any())


def _arrays(stops: tuple[set[int], set[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids that end a sequence, and that are fed in its place afterwards."""
    ends, pads = (np.array(sorted(ids), np.int64) for ids in stops)
    return ends, pads


def _go_on(live: CachedSequences, real: np.ndarray, again: int) -> Named:
    shape, keys = real.shape, None
    fresh = real
    sequence, unit = (np.broadcast_to(a[:, None], shape) for a in (live.sequences, live.unit))
    if again:
        assert live.whole is not None
        keys = live.whole[1][:, :again]
        sequence = np.concatenate([live.whole[2][:, :again], sequence[:, again:]], 1)
        real[:, :again], fresh = keys >= 0, real.copy()
        fresh[:, :again] = False
    position = np.cumsum(fresh, 1) - 1 + live.counts[:, None] if shape[1] > 1 else live.counts[:, None]
    return Named(live, real, fresh, sequence, position, np.zeros(shape, bool), unit, keys)


def _seen(live: CachedSequences, stream: Stream) -> int:
    """How many places of pictures were run before: all, or the pictures' own where text behind them comes, goes or changes."""
    known = 0 if live.whole is None else live.whole[1].shape[1]
    return known if stream.shape[1] == known or stream.layout is None else min(stream.layout.slots, known)


def _images(stream: Stream, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(1, places) where an image begins, if grids say so."""
    cells = None
    if "grid" in arrays:
        cells = in_blocks(arrays["grid"], stream.merge, stream.shape[1], int(arrays["patches"]))
    return None if cells is None else np.diff(cells[:, 0], prepend=-1).astype(bool)[None]


def among(ids: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Which ids (N,) are among some: a step of decoding has few of both."""
    if len(some) > _FEW:
        return np.isin(ids, some)
    found = np.zeros(len(ids), bool)
    for one in some:
        found |= ids == one
    return found
