"""A model that runs itself inside its own call: X-LoRA's first pass in a hook, a forward that begins with another forward.

What routers decide in there prepares the call that somebody asked for, whose tokens they would be a second time. A pass is told
by the Python frames that a router stands in: below the call of a module its own forward must come, and once.
"""

import sys
from collections.abc import Callable
from functools import partial
from inspect import unwrap
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, TypeVar

from torch import nn

from ..sequences.streams import Frame, outwards

_MACHINERY = nn.Module._call_impl.__code__.co_filename
T = TypeVar("T")


def depth(call: Frame) -> int:
    """How many runs of a module inside its own call lie around what runs now; 0 in a plain forward. `call`: the innermost."""
    passes, child = 0, None
    calls = [c for c in outwards(call) if c.python is not None]
    codes = {id(c.python): _entry(c.module) for c in calls}
    forwards = {_plain(c.module): c.module for c in calls}
    met: dict[CodeType, list[FrameType]] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and calls:
        code = frame.f_code
        if code in forwards:
            met.setdefault(code, []).append(frame)
        if id(frame) in codes:
            passes += _strange(child, codes[id(frame)])
            calls = [c for c in calls if c.python is not frame]
        elif code.co_filename != _MACHINERY:
            child = code
        frame = frame.f_back
    return passes + sum(_more(frames, forwards[code]) for code, frames in met.items())


def outermost(found: list[tuple[T, Frame, int]]) -> list[tuple[T, Frame]]:
    """What was decided in the fewest such runs: all of it, for a model that does all its work inside one."""
    least = min((deep for *_, deep in found), default=0)
    return [(one, frame) for one, frame, deep in found if deep == least]


def _strange(child: CodeType | None, entry: CodeType | None) -> bool:
    """Whether what a call runs first is not the module's forward but somebody's hook."""
    compiled = child is not None and ("_dynamo" in child.co_filename or child.co_name.startswith("torch_dynamo"))
    return child is not None and entry is not None and child is not entry and not compiled


def _entry(module: nn.Module) -> CodeType | None:
    """The code that a call of the module enters, None where it cannot be told."""
    forward: Any = module.forward
    while isinstance(forward, partial):
        forward = forward.func
    forward = forward.__func__ if isinstance(forward, MethodType) else forward
    if not isinstance(forward, FunctionType):
        forward = vars(type(forward)).get("__call__")
    return forward.__code__ if isinstance(forward, FunctionType) else None


def _plain(module: nn.Module) -> CodeType:
    """The code of a class's forward under its decorators."""
    forward: Callable[..., Any] = unwrap(type(module).forward)
    return getattr(forward, "__code__", _NONE)


def _more(frames: list[FrameType], module: nn.Module) -> int:
    """How many of several frames of one code are of one module, beyond the first. Frames are looked into only where they are
    several: looking keeps what they hold alive."""
    if len(frames) < 2:
        return 0
    return max(0, sum(frame.f_locals.get(frame.f_code.co_varnames[0]) is module for frame in frames) - 1)


_NONE = depth.__code__
