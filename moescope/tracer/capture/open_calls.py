"""Calls of the traced model that are open: whose they are, and calls that end without a word.

A call ends with its hook, by an exception (the hook is called all the same), or without any hook: a KeyboardInterrupt that is
caught above the model, or a thread that died in it. So an open call is held by its Python frame, and one that no thread stands
in any more is over. Threads that share the model take turns, forward by forward.
"""

import sys
from collections.abc import Callable
from threading import Lock, get_ident
from types import FrameType
from typing import Any

import torch
from torch import nn

from ... import hooks
from ...errors import ModelError
from ...proof import proving
from ...routers.calls import signature
from ..sequences.streams import Frame

_PATIENCE = 600  # seconds that a thread waits for another's forward to end


class OpenCalls:
    """Keeps the stack of open calls; `opened` and `closed` are called for the outermost one, `cut` if it did not end well."""

    def __init__(self, opened: Callable[[], None], closed: Callable[[Frame], None], cut: Callable[[], None]) -> None:
        self.current: Frame | None = None
        self._opened, self._closed, self._cut = opened, closed, cut
        self._turn, self._ending, self._owner, self._over = Lock(), Lock(), 0, False
        self._root: Frame | None = None

    def hook(self, module: nn.Module) -> list[Any]:
        """Watch the calls of a module."""
        names = [p.name for p in signature(module).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._over or silent():
                return
            self._sweep()
            frame = Frame(module, dict(zip(names, args)) | kwargs, python=_module_call())
            if self._owner != get_ident():
                self._begin(frame)
            else:
                frame.parent = self.current
            self.current = frame

        def leave(_: nn.Module, __: Any, ___: Any, output: Any) -> None:
            python = _module_call()
            while (frame := self.mine()) is not None and frame.module is not module and not _stands(frame):
                self._drop(frame)
            if frame is None or frame.module is not module or frame.python is not python:
                return
            frame.output, frame.python = output, None
            if frame.parent is not None:
                self.current = frame.parent
            else:
                self._end(frame, output is None)

        return [hooks.before(module, enter, kwargs=True, first=True), hooks.after(module, leave, kwargs=True, always=True)]

    def mine(self) -> Frame | None:
        """The innermost open call, if it is of the calling thread."""
        return self.current if self._owner == get_ident() else None

    def close(self) -> None:
        """No more calls: waits for another thread's that is open; one of this thread is cut."""
        self._over = True
        if self._owner == get_ident() and self._root is not None:
            self._end(self._root, True)
        elif self._take_turn():
            self._turn.release()

    def _begin(self, frame: Frame) -> None:
        if not self._take_turn():
            raise ModelError("two threads run the traced model at once, and one forward waits inside the other; use one thread")
        self._owner, self._root = get_ident(), frame
        try:
            self._opened()
        except BaseException:
            self._root, self._owner = None, 0
            self._turn.release()
            raise

    def _take_turn(self) -> bool:
        """Wait until no other thread's call is open, or none that anybody stands in."""
        for _ in range(_PATIENCE):
            if self._turn.acquire(timeout=1.0):
                return True
            root, thread = self._root, sys._current_frames().get(self._owner)
            if root is not None and not _stands(root, thread):
                self._end(root, True)
        return False

    def _sweep(self) -> None:
        """Close calls of this thread that ended without a word."""
        while (frame := self.mine()) is not None and not _stands(frame):
            self._drop(frame)
        if self._owner == get_ident() and self.current is None and self._root is not None:  # interrupted while it was opened
            self._end(self._root, True)

    def _drop(self, frame: Frame) -> None:
        frame.python = None
        if frame.parent is None:
            self._end(frame, True)
        else:
            self.current = frame.parent

    def _end(self, root: Frame, cut: bool) -> None:
        with self._ending:
            if self._root is not root:
                return
            self._root = self.current = None
        try:
            self._cut() if cut else self._closed(root)
        finally:
            self._owner = 0
            self._turn.release()


def silent() -> bool:
    """Whether what runs now is nobody's forward: a proof, or `torch.jit.trace` taking notes."""
    return proving() or torch._C._get_tracing_state() is not None


def _module_call() -> FrameType | None:
    """The Python frame of the `nn.Module` call that runs a hook."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "_call_impl":
        frame = frame.f_back
    return frame


def _stands(call: Frame, frame: FrameType | None = None) -> bool:
    """Whether a thread (this one, or the one whose innermost `frame` is given) is still inside a call."""
    if call.python is None:
        return True
    frame = frame or sys._getframe(1)
    while frame is not None and frame is not call.python:
        frame = frame.f_back
    return frame is not None
