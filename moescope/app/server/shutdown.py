"""The server ends at once when it is told to, and with it whatever it started; it has nothing to save."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_started: list[Callable[[], None]] = []


def last(stop: Callable[[], None]) -> None:
    """Call `stop` before the server ends."""
    _started.append(stop)


def heed() -> None:
    """Heed the signals that end a program, in the place of whoever heeded them; one that is ignored stays so (nohup)."""
    for number in TOLD:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def stop_all() -> None:
    """Stop what was started."""
    while _started:
        with suppress(Exception):
            _started.pop()()


def _end(number: int, _: FrameType | None) -> None:
    stop_all()
    os._exit(0 if number == signal.SIGINT else 128 + number)  # not by the signal: the first process of a container ignores it
