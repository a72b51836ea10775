"""Ctrl-C while something short must not be broken off."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def defer_interrupt() -> Iterator[None]:
    """Put off Ctrl-C until the block is done; the second one is not put off. Only in the main thread, where it arrives.

    DuckDB makes of a Ctrl-C a RuntimeError 'Query interrupted'; it leaves here as the KeyboardInterrupt that it is.
    """
    before = signal.getsignal(signal.SIGINT)
    inside = getattr(before, "__module__", None) == __name__
    if threading.current_thread() is not threading.main_thread() or not callable(before) or inside:
        yield
        return
    heard: list[int] = []

    def later(number: int, frame: Any) -> None:
        heard.append(number)
        if len(heard) > 1:
            before(number, frame)

    signal.signal(signal.SIGINT, later)
    try:
        yield
    except RuntimeError as error:
        if len(heard) < 2:
            raise
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        before(heard[0], None)
