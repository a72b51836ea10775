"""Queries that take too long are interrupted, by one thread for all of them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

TICK_S = 0.1


class Interruptible(Protocol):
    """A cursor of DuckDB."""

    def interrupt(self) -> None:
        """Stop what runs on it."""


class Watch:
    """Cursors with the moment at which each is interrupted; the thread sleeps while there is none."""

    def __init__(self) -> None:
        self.running: dict[int, tuple[float, Interruptible]] = {}
        self.wake = threading.Event()
        threading.Thread(target=self._look, daemon=True, name="moescope-limits").start()

    def _look(self) -> None:
        while True:
            self.wake.wait()
            now = time.monotonic()
            for until, cursor in list(self.running.values()):
                if now > until:
                    cursor.interrupt()
            if not self.running:
                self.wake.clear()
            time.sleep(TICK_S)


_watch: list[Watch] = []
_made = threading.Lock()


@contextmanager
def limited(cursor: Interruptible, seconds: float) -> Iterator[None]:
    """Interrupt what runs on `cursor` after so many seconds."""
    with _made:
        if not _watch:
            _watch.append(Watch())
    watch, key = _watch[0], id(cursor)
    watch.running[key] = time.monotonic() + seconds, cursor
    watch.wake.set()
    try:
        yield
    finally:
        watch.running.pop(key, None)
