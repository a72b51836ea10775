"""Which inputs a router's rows come from: calls of the model and of its towers that are open when the router fires.

A frame is an open call of a module that takes token ids, embeddings or pixels (the model itself, an encoder, a vision tower).
A router belongs to the innermost one. Only references and shapes are read here; nothing looks at a tensor's values.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import ModelError
from ..sequences.caches import Caches, made_by
from ..sequences.generating import Calls, Choice, choice
from ..sequences.requests import ARGUMENT, batch_around, pieces
from ..sequences.streams import Frame, Stream, enters, given_cache, name_images, name_text, outwards, text_shape, token_ids
from .open_calls import OpenCalls

__all__ = ["Frame", "Frames", "Stream"]


class Frames:
    """The open calls around a router, and which tokens its rows are."""

    def __init__(
        self,
        model: nn.Module,
        sites: list[Any],
        opened: Callable[[], None],
        closed: Callable[[Frame], None],
        cut: Callable[[], None],
    ) -> None:
        self.model, self._opened = model, opened
        self._caches = Caches()
        self._fresh: set[int] = set()  # generations that began in the forward that is open
        self._streams: dict[Any, tuple[Frame, Stream]] = {}  # of the forward that is open
        self._asked: dict[Any, Stream] = {}  # the same, by what was asked
        self._generations, self.generating = Calls(), False  # generating: the caller says that the model made what is fed next
        self._choices: weakref.WeakKeyDictionary[Any, dict[str, Choice]] = weakref.WeakKeyDictionary()  # by cache and stack
        self._runners: weakref.WeakKeyDictionary[Any, tuple[int, dict[str, int]]] = (
            weakref.WeakKeyDictionary()
        )  # continuous batching
        self._pictures: dict[Any, int] | None = None  # generations of pictures, while one thing is denoised
        self._here: dict[Any, int] = {}  # of those whose patches several kinds of blocks see, in the forward that is open
        self._before = next((before for site in sites if (before := getattr(site, "before", ""))), "")
        self.refused: str | None = None  # why a forward was not recorded, should whoever runs the model keep it to himself
        self.notes: dict[str, None] = {}  # sentences on what could not be known
        self.calls = OpenCalls(self._begin, closed, cut)
        self.handles = [h for m in _entrances(model, sites) for h in self.calls.hook(m)]

    def _begin(self) -> None:
        self._fresh.clear()
        self._streams.clear()
        self._asked.clear()
        self._here.clear()
        self._opened()

    def mine(self) -> Frame | None:
        """The innermost open frame, if it is of the calling thread."""
        return self.calls.mine()

    def stream(self, frame: Frame, stack: str, rows: int, unit: str = "token") -> Stream:
        """The tokens of `rows` rows (-1: of a part of them) of a router under `frame`; the same object for the same tokens.

        `unit`: what its decisions are about, where that is a whole sequence or the batch.
        """
        asked = id(frame), stack, rows, unit
        if (found := self._asked.get(asked)) is None:
            found = self._asked[asked] = self._named(frame, stack, rows, unit)
        return found

    def _named(self, frame: Frame, stack: str, rows: int, unit: str) -> Stream:
        calls = outwards(frame)
        text = text_shape(calls, rows) if unit == "token" else None
        key = id(frame), stack, text or rows, unit
        if key not in self._streams:
            if text is not None:
                stream = self._text(calls, stack, text)
            elif unit != "token":
                stream = self._numbered(Stream(stack, (rows, 1), unit, -1, False), True)
            else:
                stream, given = name_images(calls, stack, rows, self._before)
                stream = self._numbered(stream, given is not None, given)
            self._streams[key] = frame, stream
            if stream.note is not None:
                self.notes[stream.note] = None
        return self._streams[key][1]

    def settle(self, output: Any) -> None:
        """A forward has ended: the streams of its text go on where its cache does."""
        for frame, stream in self._streams.values():
            calls = outwards(frame)
            cache = given_cache(calls)
            cache = made_by(output) if cache is None else cache
            if stream.kind != "text" or cache is None:
                continue
            if not stream.continues:
                self._caches.remember(cache, stream.stack, stream.generation)
            if stream.stack != "encoder" and not (self.model.training and torch.is_grad_enabled()):
                self._choose(cache, stream, output)

    def _choose(self, cache: Any, stream: Stream, output: Any) -> None:
        made = choice(output, stream.ids, stream.facts.get("mask"))
        try:
            self._choices.setdefault(cache, {})[stream.stack] = made
        except TypeError:  # a tuple, as old models return
            return

    @contextmanager
    def of_the_model(self) -> Iterator[None]:
        """What is fed to a cache meanwhile was made by the model: its caller says so."""
        before, self.generating = self.generating, True
        try:
            yield
        finally:
            self.generating = before

    def fits(self, frame: Frame, shape: tuple[int, int]) -> bool:
        """Whether (sequences, places) are those of the ids or embeddings of an open call, if it has any."""
        calls = outwards(frame)
        return text_shape(calls, shape[0] * shape[1]) == shape or text_shape(calls, -1) is None

    def close(self) -> None:
        """Wait for an open forward of another thread, and undo what was wrapped."""
        self.calls.close()
        self._caches.close()

    def _numbered(self, stream: Stream, told: bool, given: Frame | None = None) -> Stream:
        """A stream with its number: that of the same pictures in the blocks before it, and in the step before it where the
        caller (or a pipeline) denoises them step by step.

        `told`: whether the rows are known to be of pictures, named or not. `given`: the call that was handed them.
        """
        joint = stream.layout is not None and stream.layout.joint
        key: Any = stream.stack, stream.shape, stream.kind
        if stream.layout is not None:  # the same patches, whatever text stands behind them
            key = stream.stack, stream.shape[0], stream.layout.slots, stream.layout.lead, stream.layout.grids
        if self._pictures is not None and told:
            numbers = self._pictures
        elif joint:
            numbers, key = self._here, (id(given), key)
        else:
            numbers = {}
        stream.continues = stream.reruns = told and (self._pictures is not None or joint)
        stream.generation = numbers[key] = numbers[key] if key in numbers else self._caches.new()
        return stream

    @contextmanager
    def of_one_picture(self) -> Iterator[None]:
        """Pictures of one shape are the same pictures meanwhile, in every forward."""
        before, self._pictures = self._pictures, {}
        try:
            yield
        finally:
            self._pictures = before

    def _batched(self, calls: list[Frame], stack: str, shape: tuple[int, int]) -> Stream:
        """A row of continuous batching. ModelError where nobody says what is in it."""
        if (found := batch_around()) is None:
            self.refused = _BATCHED
            raise ModelError(_BATCHED)
        runner, batch = found
        if runner not in self._runners:
            self._runners[runner] = self._caches.new(), {}
        number, seen = self._runners[runner]
        facts = {"kept": kept} if torch.is_tensor(kept := calls[-1].inputs.get("logits_to_keep")) else {}
        return Stream(stack, shape, "text", number, True, token_ids(calls, shape, stack), facts, requests=pieces(batch, seen))

    def _text(self, calls: list[Frame], stack: str, shape: tuple[int, int]) -> Stream:
        if ARGUMENT in calls[-1].inputs:
            return self._batched(calls, stack, shape)
        cache = given_cache(calls)
        call = self._generations.around(self.model) if stack != "encoder" else None
        known = self._caches.known(cache, stack) if cache is not None or call is None else call.numbers.get(stack)
        continues = known is not None and known not in self._fresh and not (cache is not None and _empty(calls))
        number = known if known is not None and continues else self._caches.new()
        stream = name_text(calls, stack, shape, (number, continues), call)
        stream.reruns = call is not None and cache is None
        if not continues:
            self._fresh.add(number)
            if call is not None:
                call.entered.add(number)
            if call is not None and cache is None:
                call.numbers[stack] = number
            elif stack != "encoder" and cache is not None and stream.past:
                self.notes[_UNSEEN] = None
            return stream
        stream.events, stream.made = self._caches.events(number), self.generating
        last = self._choices.get(cache, {}).get(stack) if cache is not None and not isinstance(cache, tuple | list) else None
        entering = call is None or number not in call.entered
        if call is not None:
            call.entered.add(number)
        if last is not None and stream.ids is not None and entering and not stream.made:
            stream.known = last.stood(stream.ids)
            stream.facts |= {} if stream.known or stream.events else last.facts(stream.ids)
        return stream


_BATCHED = (
    "this forward is of continuous batching (generate_batch), and this version of Transformers does not say which requests are "
    "in it, so its tokens cannot be named; trace generate instead"
)
_UNSEEN = (
    "some forwards went on with a cache that was filled where this trace did not look: their sequences, and the positions in "
    "them, begin with what was traced"
)


def _empty(calls: list[Frame]) -> bool:
    past = next((f.past for f in calls if given_cache([f]) is not None), None)
    return isinstance(past, int) and past == 0


def _entrances(model: nn.Module, sites: list[Any]) -> list[nn.Module]:
    """The model, and every module above a router that takes ids, embeddings or pixels."""
    names = dict(model.named_modules())
    above = {name.rsplit(".", i)[0] for site in sites for name in [site.name + ".x"] for i in range(1, name.count(".") + 1)}
    towers = [names[n] for n in sorted(above) if n in names and n and enters(names[n])]
    return [model, *(m for m in towers if m is not model)]
