"""Who is served when: one prompt at a time, the others wait in line; runs that were made lie ready to be kept for a while."""

import os
import queue
import shutil
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, MoescopeError, StoreError
from ..foreign import said
from ..store.write.many.moved import packed
from ..store.write.unfinished_run import UnfinishedRun
from .asked import Asked
from .generation import Stop
from .listening import Heard, Row
from .ready import Ready, begin
from .session import Session
from .warm import warm

WAITING = 16  # prompts in line, at most
KEPT = 24  # runs that can still be kept; the oldest goes first
HELD = 4  # models at once; the one that was asked for longest ago goes first
PREFIX = "moescope-live-"
Tell = Callable[[Row], object]
Say = Callable[[str], object]


@dataclass(eq=False)
class Ticket:
    """One prompt in line. `tell` gets its events, the last of which is `end` or `refused`."""

    asked: Asked
    tell: Tell
    stop: Stop
    uid: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    gone: bool = False  # whoever asked has left: nothing of it is kept
    over: bool = False  # its last event was told

    def say(self, event: Row) -> None:
        """Tell an event, unless the last one was told; who cannot hear it any more is no trouble to others."""
        if not self.over:
            self.over = event["event"] in ("end", "refused")
            with suppress(RuntimeError):  # the loop that listened is closed
                self.tell(event)

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self.gone = self.stop.asked = True


class Desk:
    """A thread that runs prompts one after the other. `names`: the models that may be asked for, the first by default."""

    def __init__(
        self, names: Sequence[str], how: Mapping[str, Any] | None = None, seconds: float = 120.0, say: Say = lambda text: None
    ) -> None:
        """`how`: options of `load`; `seconds`: of a prompt; `say` is told in a sentence which models are ready, or fail."""
        self.names, self.how, self.seconds, self.say = list(names), dict(how or {}), seconds, say
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.ready: OrderedDict[str, Ready] = OrderedDict()
        self.failed: dict[str, str] = {}
        self.runs: OrderedDict[str, UnfinishedRun] = OrderedDict()
        self.line: list[Ticket] = []
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="moescope-live", daemon=True)
        self._thread.start()
        self.prepare(self.names[0])

    def about(self, name: str) -> Row:
        """What is known of a model, which is loaded if it is not: {"state": loading | ready | failed, ...}."""
        name = self.named(name)
        if name in self.failed:
            return {"state": "failed", "model": name, "models": self.names, "sentence": self.failed[name]}
        ready = self.ready.get(name)
        if ready is None:
            self.prepare(name)
            return {"state": "loading", "model": name, "models": self.names}
        return {"state": "ready", "model": name, "models": self.names, "waiting": len(self.line), **ready.about()}

    def hopeless(self) -> str:
        """Why no model of `names` can answer anything; empty while one may."""
        return self.failed[self.names[0]] if all(name in self.failed for name in self.names) else ""

    def named(self, name: str) -> str:
        """The model that is meant. InputError for one that is not served here."""
        if name and name not in self.names:
            raise InputError(f"{name[:200]!r} is not served here: there are {', '.join(self.names)}")
        return name or self.names[0]

    def prepare(self, name: str) -> None:
        """Load a model, behind what is in line; once."""
        self._todo.put(lambda: self._prepared(name))

    def ask(self, asked: Asked, tell: Tell) -> Ticket:
        """Get in line. InputError where the line is full."""
        ticket = Ticket(asked, tell, Stop(self.seconds))
        with self._lock:
            if len(self.line) >= WAITING:
                raise InputError(f"{WAITING} prompts are in line already: wait until one of them is through")
            self.line.append(ticket)
        self._places()
        self._todo.put(lambda: self._serve(ticket))
        return ticket

    def stop(self, uid: str) -> bool:
        """End a prompt that runs, of which what was made so far can be kept, or take one that waits out of the line."""
        for place, ticket in enumerate([*self.line]):
            if ticket.uid == uid:
                ticket.stop.asked = True
                if place:
                    ticket.say({"event": "refused", "sentence": "this prompt was stopped before its turn came"})
                return True
        return False

    def packed(self, uid: str) -> bytes:
        """A run, to be kept. StoreError where it is not there any more."""
        if uid not in self.runs:
            raise StoreError("this run is not there any more; try the prompt once more, and keep it then")
        return packed(self.runs[uid])

    def close(self) -> None:
        """End what runs, and leave nothing behind."""
        for ticket in [*self.line]:
            ticket.leave()
        self._todo.put(None)
        self._thread.join(5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            job()

    def _prepared(self, name: str) -> None:
        if name in self.ready or name in self.failed:
            return
        try:
            ready = begin(name, self.how)
            warm(ready, self.folder / "warm.duckdb")
            self.ready[name] = ready
            self.say(f"{name} is ready")
            while len(self.ready) > HELD:
                self.ready.popitem(last=False)
        except BaseException as error:
            self.failed[name] = _sentence(error)
            if not self.hopeless():  # else whoever serves ends with the sentence
                self.say(self.failed[name])

    def _serve(self, ticket: Ticket) -> None:
        try:
            if not ticket.over:
                self._prepared(ticket.asked.model)
            ticket.stop = ticket.stop if ticket.stop.asked else Stop(self.seconds)  # its time begins now
            if ticket.stop.asked:
                raise InputError("this prompt was stopped before its turn came")
            if ticket.asked.model in self.failed:
                raise InputError(self.failed[ticket.asked.model])
            self.ready.move_to_end(ticket.asked.model)
            self._run(ticket, self.ready[ticket.asked.model])
        except BaseException as error:
            ticket.say({"event": "refused", "sentence": _sentence(error)})
        finally:
            with self._lock:
                self.line.remove(ticket)
            self._places()

    def _run(self, ticket: Ticket, ready: Ready) -> None:
        heard, last = Heard(ready.rules), list[Row]()

        def tell(event: Row) -> None:
            (last.append if event["event"] == "end" else ticket.say)(event)

        try:
            writer = Session(ready, ticket.asked, self.folder / "live.duckdb", tell, ticket.stop, heard).run()
        except BaseException:
            if heard.writer is not None:
                heard.writer.part.remove()
            raise
        if ticket.gone:
            writer.part.remove()
            return
        self.runs[ticket.uid] = UnfinishedRun(writer.part.path)
        while len(self.runs) > KEPT:
            self.runs.popitem(last=False)[1].remove()
        for event in last:
            ticket.say({**event, "run": ticket.uid})

    def _places(self) -> None:
        """Tell those who wait how many are before them."""
        for place, ticket in enumerate([*self.line]):
            ticket.say({"event": "waits", "before": place, "uid": ticket.uid})


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, MoescopeError) else said(error)


def _sweep() -> None:
    """Remove what processes left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError, ValueError):
            if not Path(f"/proc/{int(number)}").exists() and Path("/proc").is_dir():
                shutil.rmtree(folder, ignore_errors=True)
