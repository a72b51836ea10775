"""Sequences into a store while somebody else serves: on a thread of their own; whatever goes wrong there is counted, and who
serves never waits and never knows of it."""

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...foreign import said
from .sink import Sink

_WAITING = 1024  # things that wait to be taken
_EVERY = 5.0  # seconds between shards
_AGAIN = 30.0  # seconds after which a store that failed is tried again


class Keeping(ABC):
    """Keeps what is `put` until `close`, which joins the run. `say` is told in a sentence what went wrong.

    A store that fails is let go of, and tried again later as another run: what was committed before stays beside the store, for
    `moescope recover`, and nothing half-written with it.
    """

    what = "a sequence"  # that is lost
    server = "requests go on"

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say = say
        self.kept = self.lost = 0
        self.runs: list[int] = []
        self.sink: Sink | None = None
        self._fresh = 0  # sequences since the last commit
        self._told: set[str] = set()
        self._not_before = self._committed = 0.0
        self._queue: queue.Queue[Any] = queue.Queue(_WAITING)
        self._end_of_all = object()
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    @abstractmethod
    def take(self, thing: Any) -> None:
        """Do with one thing what is to be done, on the thread."""

    @abstractmethod
    def new_sink(self) -> Sink:
        """One for a new run."""

    def finish(self) -> None:  # noqa: B027 (most have nothing left)
        """What is left to take at the end, on the thread."""

    def put(self, thing: Any) -> bool:
        """Take a thing, or lose it where the store does not keep up (False): nobody waits."""
        try:
            self._queue.put_nowait(thing)
        except queue.Full:
            self.lose("the store does not keep up with the server")
            return False
        return True

    def close(self) -> None:
        """Store what waits, and join the run."""
        if self._thread.is_alive():
            self._queue.put(self._end_of_all)
            self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether that was done."""
        return not self._thread.is_alive()

    @property
    def waiting(self) -> bool:
        """Whether the store failed a moment ago and is left alone."""
        return time.monotonic() < self._not_before

    def guarded(self, step: Callable[[], object], costs: int = 0) -> None:
        """Do something with the store; where that fails it is let go of, and so many sequences more are lost."""
        try:
            step()
        except Exception as error:
            self._let_go()
            self.lose(said(error), costs)

    def lose(self, why: str, n: int = 1) -> None:
        """Count what is not kept; each reason is said once."""
        self.lost += n
        if why not in self._told:
            self._told.add(why)
            self.say(f"{self.what} was not kept ({why}); {self.server}")

    def opened(self) -> Sink:
        """The sink of the run."""
        if self.sink is None:
            self.sink = self.new_sink()
        return self.sink

    def added(self) -> None:
        """A sequence was added to the sink."""
        self.kept += 1
        self._fresh += 1

    def _work(self) -> None:
        while True:
            try:
                thing = self._queue.get(timeout=_EVERY)
            except queue.Empty:
                self.guarded(self._commit)
                continue
            if thing is self._end_of_all:
                self.guarded(self.finish)
                self.guarded(self._end)
                return
            self.guarded(lambda: self.take(thing), 1)  # noqa: B023
            del thing  # it may hold much
            if time.monotonic() - self._committed > _EVERY:
                self.guarded(self._commit)

    def _let_go(self) -> None:
        sink, self.sink = self.sink, None
        self._not_before = time.monotonic() + _AGAIN
        if sink is None:
            return
        self.lost, self.kept, self._fresh = self.lost + self._fresh, self.kept - self._fresh, 0
        with suppress(Exception):
            if sink.writer is not None and sink.writer.part.numbered:
                sink.writer.release()
                self.say(f"what was committed to {sink.store} before is safe beside it: moescope recover {sink.store}")
            else:
                sink.discard()

    def _commit(self) -> None:
        self._committed = time.monotonic()
        if self._fresh and self.sink is not None:
            self.sink.commit()
            self._fresh = 0

    def _end(self) -> None:
        if self.sink is not None and self.sink.writer is not None:
            self.runs.append(self.sink.close())
            self.sink, self._fresh = None, 0
