"""A model that runs itself inside its own call: X-LoRA's first pass in a hook, a forward that begins with another forward.

What routers decide in there prepares the call that somebody asked for, whose tokens they would be a second time. A pass is told
by the Python frames that a router stands in: below the call of a module its own forward must come, and once.
"""

import sys
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from inspect import unwrap
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, TypeVar

from torch import nn

from ..sequences.streams import Frame

_MACHINERY = nn.Module._call_impl.__code__.co_filename
T = TypeVar("T")


def depth(call: Frame) -> int:
    """How many runs of a module inside its own call lie around what runs now; 0 in a plain forward. `call`: the innermost."""
    entries: dict[int, nn.Module] = {}
    forwards: dict[int, nn.Module] = {}  # by identity: hashing a code object reads all of it
    open_call: Frame | None = call
    while open_call is not None:
        if open_call.python is not None:
            entries[id(open_call.python)] = open_call.module
            forwards[id(_plain(type(open_call.module)))] = open_call.module  # type: ignore[arg-type]
        open_call = open_call.parent
    passes, left, seen, met = 0, len(entries), list[FrameType](), list[FrameType]()
    frame: FrameType | None = sys._getframe(1)
    while left and frame is not None:
        if id(frame) in entries:
            passes += _strange(seen, entries[id(frame)])
            left -= 1
        elif id(frame.f_code) in forwards:
            met.append(frame)
        seen.append(frame)
        frame = frame.f_back
    return passes if len(met) < 2 else passes + _more(met, forwards)


def outermost(found: list[tuple[T, Frame, int]]) -> list[tuple[T, Frame]]:
    """What was decided in the fewest such runs: all of it, for a model that does all its work inside one."""
    least = min((deep for *_, deep in found), default=0)
    return [(one, frame) for one, frame, deep in found if deep == least]


def _strange(below: list[FrameType], module: nn.Module) -> bool:
    """Whether what a call of the module runs first, of the frames below it, is not its forward but somebody's hook."""
    entry = _entry(module)
    for frame in reversed(below):
        code = frame.f_code
        if code is entry:
            return False
        if code.co_filename != _MACHINERY:
            compiled = "_dynamo" in code.co_filename or code.co_name.startswith("torch_dynamo")
            return entry is not None and not compiled
    return False


def _entry(module: nn.Module) -> CodeType | None:
    """The code that a call of the module enters, None where it cannot be told."""
    forward: Any = module.forward
    while isinstance(forward, partial):
        forward = forward.func
    forward = forward.__func__ if isinstance(forward, MethodType) else forward
    if not isinstance(forward, FunctionType):
        forward = vars(type(forward)).get("__call__")
    return forward.__code__ if isinstance(forward, FunctionType) else None


@lru_cache(maxsize=256)
def _plain(kind: type[nn.Module]) -> CodeType:
    """The code of a class's forward under its decorators."""
    forward: Callable[..., Any] = unwrap(kind.forward)
    return getattr(forward, "__code__", _NONE)


def _more(frames: list[FrameType], forwards: dict[int, nn.Module]) -> int:
    """How many of several forwards are of one module, beyond the first of each. Frames are looked into only where they are
    several: looking keeps what they hold alive."""
    code = Counter(id(frame.f_code) for frame in frames)
    own = [f for f in frames if code[id(f.f_code)] > 1 and f.f_locals.get(f.f_code.co_varnames[0]) is forwards[id(f.f_code)]]
    return sum(count - 1 for count in Counter(id(frame.f_code) for frame in own).values())


_NONE = depth.__code__
