"""What running a model may change in it, put back: buffers, plain attributes, caches, random states, train flags.

NLLB-MoE's router keeps the capacity of its last forward, dynamic rotary embeddings keep the longest length seen, caches grow:
a proof that left such traces would change what is computed, or trained, after it. Everything reachable from the modules'
attributes is remembered by reference, containers and objects by what they hold, tensors by their values.
"""

import io
import logging
import random
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ProofFailed
from ..hooks import PLACES, Own
from ..weights import as_bytes, storage

_CLONED = 256 << 20  # bytes of tensors of which a copy is kept, smallest first; larger ones are only watched
_SAMPLE = 1 << 10  # values of a tensor that is only watched
_OBJECTS = 1 << 20  # after which nothing more is looked at
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device, torch.Size, ModuleType)
_CODE = (FunctionType, MethodType, BuiltinFunctionType)
_FOREIGN = (logging.Logger, logging.Handler, threading.Thread, io.IOBase, Own)  # others change these meanwhile
_OF_MODULES = {"_parameters", "_buffers", "_modules"}  # containers of theirs; the other private ones hold hooks


class State:
    """Everything that a forward of `model` on `inputs` might change, as it was when this was made."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        self._kept: dict[int, tuple[Any, Any]] = {}  # by id: the object, and what it held
        self._generators: list[tuple[Any, Any]] = []
        self._hooks: list[tuple[nn.Module, dict[str, dict[int, Any]]]] = []
        tensors: dict[int, Tensor] = {}
        for thing in _reachable([model, dict(inputs)]):
            if isinstance(thing, Tensor):
                tensors[id(thing)] = thing
                self._kept[id(vars(thing))] = (vars(thing), dict(vars(thing)))
            elif isinstance(thing, torch.Generator):
                self._generators.append((thing.set_state, thing.get_state()))
            else:
                self._kept[id(thing)] = (thing, _content(thing))
                if isinstance(thing, nn.Module):
                    self._hooks.append((thing, _hooks_of(thing)))
        self._tensors = [t for t in tensors.values() if type(t) in (Tensor, nn.Parameter) and not t.is_meta]
        own = (t for t in tensors.values() if _plain(t) and not t.is_meta and not t.is_nested)
        self._under = [(t, under) for t in own if (under := storage(t)) is not None]
        self._values = _cloned(self._tensors)
        self._samples = [_sample(t) if value is None else None for t, value in zip(self._tensors, self._values)]
        self._random = _random_states()

    def restore(self) -> None:
        """Put back what differs. ProofFailed if a large tensor was written into, of which no copy was kept."""
        for thing, content in self._kept.values():
            _refill(thing, content)
        for module, hooks in self._hooks:
            _rehook(module, hooks)
        for tensor, under in self._under:
            _lay(tensor, under)
        for tensor, value, sample in zip(self._tensors, self._values, self._samples):
            if value is not None and not _equal(tensor, value):
                with torch.no_grad():
                    tensor.copy_(value)
            elif (
                sample is not None
                and sample[0] != _version(tensor)
                and not (_plain(tensor) and _equal(sample[1], _values(tensor)))
            ):
                raise ProofFailed(
                    f"one forward of the model writes into a weight or large tensor of shape {tuple(tensor.shape)}, of which "
                    "no copy is kept, so the proof would change the model; nothing is traced"
                )
        for put, state in (*self._generators, *self._random):
            put(state)


def _reachable(roots: list[Any]) -> Iterator[Any]:
    """Tensors, generators, and whatever holds something that could be another thing later; each once."""
    seen: set[int] = set()
    waiting: deque[Any] = deque(roots)
    while waiting and len(seen) < _OBJECTS:
        thing = waiting.popleft()
        if id(thing) in seen or isinstance(thing, (*_PLAIN, *_CODE, *_FOREIGN)):
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Parameter) and thing.grad is not None:
            waiting.append(thing.grad)
        if isinstance(thing, Tensor | torch.Generator):
            yield thing
            waiting.extend(getattr(thing, "__dict__", {}).values())  # scales, say: bitsandbytes keeps them there
        elif (content := _content(thing)) is not None:
            yield thing
            waiting.extend(_children(thing, content))


def _content(thing: Any) -> Any:
    """What a container or an object holds, as a container of its own; None for what holds nothing that could change."""
    if isinstance(thing, dict | list | set | deque | bytearray):
        return _plain_copy(thing)
    if isinstance(thing, np.ndarray):
        return thing.copy()
    if isinstance(thing, tuple | frozenset):
        return tuple(thing)
    if isinstance(thing, random.Random):
        return thing.getstate()
    if isinstance(thing, np.random.Generator):
        return thing.bit_generator.state
    found = getattr(thing, "__dict__", None)
    return dict(found) if isinstance(found, dict) else None


def _plain_copy(thing: Any) -> Any:
    return type(thing)(thing) if type(thing) in (dict, list, set, deque, bytearray) else (
        dict(thing) if isinstance(thing, dict) else list(thing)
    )  # fmt: skip


def _children(thing: Any, content: Any) -> Iterable[Any]:
    if isinstance(thing, bytearray | np.ndarray | random.Random | np.random.Generator):
        return ()
    if isinstance(thing, nn.Module):
        return (v for name, v in content.items() if name in _OF_MODULES or not _hooks(name))
    return content.values() if isinstance(content, dict) else content


def _hooks(name: str) -> bool:
    return name.startswith("_") and "_hooks" in name


def _hooks_of(module: nn.Module) -> dict[str, dict[int, Any]]:
    return {name: dict(getattr(module, name)) for place, flags in PLACES.items() for name in (place, *flags)}


def _rehook(module: nn.Module, then: dict[str, dict[int, Any]]) -> None:
    """The hooks that were there, and none but moescope's own: Transformers places some in a first forward, and notes it."""
    for place, flags in PLACES.items():
        now = getattr(module, place)
        for number in [n for n, hook in now.items() if n not in then[place] and not isinstance(hook, Own)]:
            for name in (place, *flags):
                getattr(module, name).pop(number, None)
        for number in [n for n, hook in then[place].items() if n not in now and not isinstance(hook, Own)]:
            for name in (place, *flags):
                getattr(module, name).update({number: then[name][number]} if number in then[name] else {})


def _refill(thing: Any, content: Any) -> None:
    """Make a container or an object hold again what it held."""
    if isinstance(thing, tuple | frozenset):
        return
    if isinstance(thing, random.Random):
        thing.setstate(content)
    elif isinstance(thing, np.random.Generator):
        thing.bit_generator.state = content
    elif isinstance(thing, np.ndarray):
        if thing.flags.writeable:
            thing[...] = content
    elif isinstance(thing, dict):
        _refilled(thing, content)
    elif isinstance(thing, list | bytearray):
        if len(thing) != len(content) or any(a is not b for a, b in zip(thing, content)):
            thing[:] = content
    elif isinstance(thing, set | deque):
        if type(thing)(content) != thing:
            thing.clear()
            thing.update(content) if isinstance(thing, set) else thing.extend(content)
    else:
        _refilled(thing.__dict__, content)


def _refilled(now: dict[Any, Any], then: dict[Any, Any]) -> None:
    """Entries as they were; what moescope itself has put there since is no part of it."""
    if len(now) == len(then) and all(a is b and now[a] is then[b] for a, b in zip(now, then)):
        return
    for name in [name for name, value in now.items() if name not in then and not isinstance(value, Own)]:
        dict.__delitem__(now, name)
    for name, value in then.items():
        if not isinstance(value, Own) and (name not in now or not (now[name] is value or isinstance(now[name], Own))):
            dict.__setitem__(now, name, value)


def _lay(tensor: Tensor, under: Tensor) -> None:
    """Numbers where they lay: layers of bitsandbytes give their weights others (`weight.data = ...`) in a first forward."""
    now = storage(tensor)
    if now is None or now.data_ptr() != under.data_ptr() or now.shape != under.shape or now.stride() != under.stride():
        tensor.data = under


def _cloned(tensors: list[Tensor]) -> list[Tensor | None]:
    """A copy of each tensor, the smallest first, of _CLONED bytes in all; none of parameters, which are only watched."""
    left, kept = _CLONED, dict[int, Tensor]()
    for tensor in sorted((t for t in tensors if _plain(t) and not isinstance(t, nn.Parameter)), key=_bytes):
        left -= _bytes(tensor)
        if left < 0:
            break
        kept[id(tensor)] = tensor.detach().clone()
    return [kept.get(id(tensor)) for tensor in tensors]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _sample(tensor: Tensor) -> tuple[int | None, Tensor]:
    """How often a tensor was written into so far, and some of its values at equal steps: adapters write the same ones back."""
    return _version(tensor), _values(tensor)


def _values(tensor: Tensor) -> Tensor:
    if not _plain(tensor) or not tensor.is_contiguous():
        return torch.empty(0)
    flat = tensor.detach().view(-1)
    return flat[:: max(1, flat.numel() // _SAMPLE)].clone()


def _plain(tensor: Tensor) -> bool:
    """Numbers one after another; of others (sparse, quantized) only whether they were written into is known."""
    return tensor.layout is torch.strided and not tensor.is_quantized


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, so that NaN equals itself."""
    return torch.equal(as_bytes(one), as_bytes(other))


def _random_states() -> list[tuple[Any, Any]]:
    """(setter, state) of every global source of random numbers that is in use."""
    found: list[tuple[Any, Any]] = [(random.setstate, random.getstate()), (np.random.set_state, np.random.get_state())]
    found.append((torch.set_rng_state, torch.get_rng_state()))
    if torch.cuda.is_initialized():
        found.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if "torch.mps" in sys.modules and torch.backends.mps.is_available():
        found.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return found
