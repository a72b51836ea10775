"""Visitors' queries, each in a process of its own that is ended with its time, its memory, or the page that asked."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import moescope
from moescope.errors import AnalysisError

WORKER = Path(__file__).with_name("worker.py")
PACKAGES = Path(moescope.__file__).parents[1]
MOST = 4  # at once, whoever asks
PASSED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")  # of the environment; the rest is nobody's business
LOOK_S = 0.05 if sys.platform == "linux" else 0.5  # elsewhere a look at its memory takes a process
TICK_S = 0.2
Tick = Callable[[float], None]  # told every moment how long it takes; what it raises ends the query


class Failed(Exception):
    """A query ended without a result; `kind` is time, memory, changed (the store), said (in `words`) or broken."""

    def __init__(self, kind: str, words: str = "") -> None:
        super().__init__(kind, words)
        self.kind, self.words = kind, words


def environment() -> dict[str, str]:
    """What a process needs to find moescope, and nothing else."""
    paths = os.pathsep.join(filter(None, (str(PACKAGES), os.environ.get("PYTHONPATH"))))
    return {name: os.environ[name] for name in PASSED if name in os.environ} | {"PYTHONPATH": paths}


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use; 0 where it is gone."""
    with suppress(OSError, ValueError, IndexError):
        if sys.platform == "linux":
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 1024 * int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True).stdout)
    return 0


class Worker:
    """One process, started and imported ahead of its question."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environment(), cwd="/", start_new_session=True,
        )  # fmt: skip
        self.input, self.output = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)

    def answer(self, question: dict[str, Any], tick: Tick) -> tuple[bytes, bool]:
        """The result, and whether there were more rows. Failed where there is none."""
        try:
            data = self._read(question, tick)
        finally:
            self.end()
        body, _, last = data.rstrip(b"\n").rpartition(b"\n")
        try:
            said = json.loads(last)
        except ValueError:
            raise Failed(self._died()) from None
        if "failed" in said:
            raise Failed(str(said["failed"]), str(said["words"]))
        return body, bool(said["more"])

    def _read(self, question: dict[str, Any], tick: Tick) -> bytes:
        """Everything that the process says until it ends."""
        with suppress(BrokenPipeError):
            self.input.write(json.dumps(question).encode() + b"\n")
            self.input.flush()
        source, begun, ticked, found = self.output.fileno(), time.monotonic(), 0.0, bytearray()
        before, poll = resident(self.process.pid), select.poll()
        poll.register(source, select.POLLIN)
        while True:
            if poll.poll(LOOK_S * 1000):
                if not (data := os.read(source, 1 << 20)):
                    return bytes(found)
                found += data
            took = time.monotonic() - begun
            if took > question["seconds"]:
                raise Failed("time")
            if len(found) > question["bytes"] + (1 << 16) or resident(self.process.pid) - before > question["memory"]:
                raise Failed("memory")
            if took - ticked > TICK_S:
                ticked = took
                tick(took)

    def _died(self) -> str:
        """Why it ended without a word."""
        code = -(self.process.returncode or 0)
        if code == signal.SIGXCPU:
            return "time"
        return "memory" if code > 0 else "broken"  # by a signal, its own: no more memory was to be had

    def kill(self) -> None:
        """At once, from wherever."""
        with suppress(OSError):
            self.process.kill()

    def end(self) -> None:
        """Over, whatever it does; it ends by itself within a moment of its last word."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LOOK_S if sys.exc_info()[0] is None else 0)
        self.kill()
        self.process.wait()
        for pipe in (self.input, self.output):
            with suppress(OSError):
                pipe.close()


class Desk:
    """Hands out processes, and keeps one ready for the next question."""

    def __init__(self) -> None:
        self.room, self.lock = threading.BoundedSemaphore(MOST), threading.Lock()
        self.spare: Worker | None = None
        self.busy: list[Worker] = []
        # Started by one thread that stays: to the kernel, the thread that started a process is its parent.
        self.starter = ThreadPoolExecutor(1, "moescope-desk")

    def prepare(self) -> None:
        """Have a process ready soon."""
        self.starter.submit(self._ready)

    def _ready(self) -> None:
        if self.spare is None:
            self.spare = Worker()

    def _take(self) -> Worker:
        with self.lock:
            self._await()
            worker, self.spare = self.spare, None
            assert worker is not None
            self.busy.append(worker)
            return worker

    def _await(self) -> None:
        self.starter.submit(self._ready).result()
        if self.spare is not None and self.spare.process.poll() is not None:  # somebody ended it meanwhile
            self.spare.end()
            self.spare = None
            self.starter.submit(self._ready).result()

    def ask(self, question: dict[str, Any], tick: Tick = lambda _: None) -> tuple[bytes, bool]:
        """The answer to a question; see `sql_worker`. Failed where there is none, AnalysisError where all are busy."""
        with self._admitted(question["seconds"], tick):
            worker = self._take()
            try:
                return worker.answer(question, tick)
            finally:
                self.busy.remove(worker)
                self.prepare()

    @contextmanager
    def _admitted(self, seconds: float, tick: Tick) -> Iterator[None]:
        begun = time.monotonic()
        while not self.room.acquire(timeout=TICK_S):
            tick(took := time.monotonic() - begun)
            if took > seconds:
                raise AnalysisError(f"{MOST} queries run already, as many as may; ask again in a moment")
        try:
            yield
        finally:
            self.room.release()

    def stop(self) -> None:
        """End every process."""
        for worker in [*self.busy, *filter(None, [self.spare])]:
            worker.kill()


desk = Desk()
