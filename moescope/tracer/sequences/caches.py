"""Which calls continue the same sequences: those that share a key–value cache, and what happens to the cache between them.

Beam search reorders a cache's rows, assisted decoding crops rejected drafts off its end; both are noted (their methods are
wrapped while a trace runs) and handed to the writing thread with the next call, as references.
"""

import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import torch
from torch import Tensor

Event = tuple[str, Any]
"""("reorder", indices) · ("select", indices) · ("repeat", times) · ("crop", length)"""

CACHES = ("past_key_values", "past_key_value", "cache_params")
_METHODS = {"reorder_cache": "reorder", "batch_select_indices": "select", "batch_repeat_interleave": "repeat", "crop": "crop"}


def length(cache: Any) -> int | Tensor | None:
    """Places that a cache holds: 0 for none, a tensor (a copy, on its device) of a static cache, None where it does not say."""
    if cache is None:
        return 0
    with suppress(Exception):  # recurrent states have no places; old caches are tuples
        found = cache[0][0].shape[-2] if isinstance(cache, tuple | list) else cache.get_seq_length()
        return found.detach().clone() if torch.is_tensor(found) else int(found)
    return None


def made_by(output: Any) -> Any:
    """The cache that a model returned."""
    return next((c for n in CACHES if (c := getattr(output, n, None)) is not None), None)


class Caches:
    """Numbers for generations by their cache, and the events of each since its last call."""

    def __init__(self) -> None:
        self._numbers: weakref.WeakKeyDictionary[Any, dict[str, int]] = weakref.WeakKeyDictionary()
        self._events: dict[int, list[Event]] = {}
        self._count = count()
        _listening.append(self)

    def new(self) -> int:
        """A number for sequences that no cache holds."""
        return next(self._count)

    def known(self, cache: Any, stack: str) -> int | None:
        """The number of a cache that an earlier call used for a stack (encoder and decoder may share one)."""
        return self._of(cache).get(stack)

    def _of(self, cache: Any) -> dict[str, int]:
        return {} if cache is None or isinstance(cache, tuple | list) else self._numbers.get(cache, {})

    def remember(self, cache: Any, stack: str, number: int) -> None:
        """This cache holds the sequences of that number."""
        with suppress(TypeError):  # a tuple, as old models return
            self._numbers.setdefault(cache, {})[stack] = number
            for method, event in _METHODS.items():
                _wrap(type(cache), method, event)

    def note(self, cache: Any, event: Event) -> None:
        """Something happened to a cache, which is one of those that are remembered or not."""
        for number in self._of(cache).values():
            self._events.setdefault(number, []).append(event)

    def events(self, number: int) -> list[Event]:
        """What happened to a cache since its last call."""
        return self._events.pop(number, [])

    def close(self) -> None:
        """Listen no longer; with the last one the cache classes have their own methods back."""
        if self in _listening:
            _listening.remove(self)
        if not _listening:
            for (kind, name), own in _wrapped.items():
                delattr(kind, name) if own is None else setattr(kind, name, own)
            _wrapped.clear()


_listening: list[Caches] = []  # traces that run, which begin and end in any order
_wrapped: dict[tuple[type, str], Any] = {}  # methods of cache classes as they were, None for inherited ones


def _wrap(kind: type, name: str, event: str) -> None:
    original = getattr(kind, name, None)
    if original is not None and (kind, name) not in _wrapped:
        _wrapped[kind, name] = kind.__dict__.get(name)
        setattr(kind, name, _noting(original, event))


def _noting(original: Callable[..., Any], event: str) -> Callable[..., Any]:
    def method(cache: Any, *args: Any, **kwargs: Any) -> Any:
        for caches in tuple(_listening):
            caches.note(cache, (event, [*args, *kwargs.values()][0]))
        return original(cache, *args, **kwargs)

    return method
