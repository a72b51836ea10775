"""The writing thread: jobs in order, into rows (`rows`), into shards; the model waits only when writing cannot keep up."""

import queue
import threading
import time
from typing import Any

from ...errors import MoescopeError
from ...store import RunWriter
from ..options import Options
from ..sequences.token_rows import Identity
from .record_batches import Job
from .rows import Rows


class Sink:
    """Writes jobs on a thread of its own, holding at most `options.max_bytes` of them.

    A shard is committed only behind a job that carries `progress`: then everything before it is whole.
    """

    def __init__(self, writer: RunWriter, identity: Identity, options: Options) -> None:
        self.writer, self.rows = writer, Rows(writer, identity, options)
        self.commit_rows, self.commit_seconds = options.commit_rows, options.commit_seconds
        self.max_bytes = options.max_bytes
        self.waited = 0.0
        self.written: dict[str, Any] = dict(writer.part.progress)
        self._held = self._waiting = 0
        self._room = threading.Condition()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="moescope-sink", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Hand over a job; waits when too much is held. Raises what the writing thread met."""
        self.check()
        size = job.bytes
        with self._room:
            if self._held and self._held + size > self.max_bytes:
                began = time.perf_counter()
                self._room.wait_for(lambda: not self._held or self._held + size <= self.max_bytes or self._error is not None)
                self.waited += time.perf_counter() - began
            self._held += size
            self._waiting += 1
        self._jobs.put(job)

    def check(self) -> None:
        """Raise what the writing thread met, if anything."""
        if self._error is not None:
            raise self._error

    def settle(self) -> None:
        """Wait until what was handed over up to now is rows. Raises what the writing thread met."""
        with self._room:
            self._room.wait_for(lambda: not self._waiting)
        self.check()

    def finish(self) -> None:
        """Wait until all jobs are rows; then raise what was met."""
        self._jobs.put(None)
        self._thread.join()
        self.check()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            size = job.bytes
            try:
                if self._error is None:
                    self._write(job)
            except BaseException as error:
                self._error = error if isinstance(error, MoescopeError) else _unexpected(error)
            finally:
                with self._room:
                    self._held -= size
                    self._waiting -= 1
                    self._room.notify_all()

    def _write(self, job: Job) -> None:
        job.wait()
        if any(forward.row is not None for forward in job.forwards):
            self.rows.add(job)
        for forward in job.forwards:
            if forward.ended is not None:
                self.rows.end(forward.ended)
        said = [forward.progress for forward in job.forwards if forward.progress is not None]
        if said and (not self.rows.unnumbered or self.writer.pending >= self.commit_rows):
            self.rows.file()
            self.written = said[-1]
            self.written["resume"] = {**self.written.get("resume", {}), "warned": dict(self.rows.warnings)}
            self.writer.mark()
            overdue = time.monotonic() - self._last > self.commit_seconds
            if self.writer.pending and (self.writer.pending >= self.commit_rows or overdue):
                self.writer.commit(self.written)
                self._last = time.monotonic()


def _unexpected(error: BaseException) -> BaseException:
    error.add_note("met while the trace was being written; what was committed before is safe")
    return error
