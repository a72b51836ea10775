"""The driver of a trace that workers make: hands out stretches, gives them their places, and joins the run."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from ...errors import InputError, ModelError, MoescopeError, StoreError
from ...store.write.change import check_target, reset_store, try_clean_up
from ...store.write.many.stretches import Gathering, Run
from ..batches import still_kept
from ..going_on import resumable
from .worker import Hello, Task

PER_WORKER = 4  # stretches at least, so that no worker waits long for the last one
Report = Callable[[dict[str, Any]], object]


class Pool(Protocol):
    """Workers, wherever they are."""

    count: int

    def hello(self) -> Hello:
        """What the first worker says whose routers are proved."""

    def whole(self) -> int | None:
        """The run of this trace in the store, if it is complete there."""

    def begin(self, run: Run) -> None:
        """What is handed out from now on is of this run."""

    def idle(self) -> bool:
        """Whether a worker has nothing to do."""

    def busy(self) -> bool:
        """Whether a worker has something to do."""

    def hand(self, number: int) -> None:
        """Give a stretch to an idle worker."""

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        """Stretches that were made (False: the data end before it) up to now, or up to so much later."""

    def under_way(self) -> tuple[int, int]:
        """Sequences and tokens of stretches that are being made."""

    def last_words(self, so_far: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of the run that are known when it is whole."""


def writer_of(store: Path, hello: Hello, resume: bool, overwrite: bool) -> Gathering:
    """The writer of the run: begun, or gone on with. StoreError where it cannot be."""
    if resume:
        return resumable(store, hello.key, Gathering)
    check_target(store)
    if overwrite and store.exists():
        reset_store(store)
    created = Gathering.create(store, hello.head)
    assert isinstance(created, Gathering)
    return created


def size_of(hello: Hello, task: Task, workers: int) -> int:
    """Batches of a stretch: about as many rows as a shard has, but some stretches for every worker."""
    most = max(1, task.options.commit_rows // max(hello.rows, 1))
    return most if hello.batches is None else max(1, min(most, hello.batches // (PER_WORKER * workers)))


def trace_many(task: Task, pool: Pool, resume: bool = False, overwrite: bool = False, report: Report | None = None) -> int:
    """Trace by the workers of `pool`; gives the run's number. What is wrong with one of them is raised as it is.

    What was made stays beside the store, and is gone on with by `resume`.
    """
    hello = pool.hello()
    if resume and (whole := pool.whole()) is not None:
        try_clean_up(task.store)
        return whole
    writer = writer_of(task.store, hello, resume, overwrite)
    gathered = Gathered(writer, writer.assign(size_of(hello, task, pool.count)), hello, report)
    try:
        pool.begin(gathered.run)
        gathered.drive(pool)
        return gathered.close(pool.last_words(writer.said), task)
    except InputError as error:
        gathered.keep()
        raise (still_kept(error, ran) if (ran := gathered.sequences) else error) from error.__cause__
    except BaseException:
        gathered.keep()
        raise


class Gathered:
    """A run that is put together of stretches."""

    def __init__(self, writer: Gathering, run: Run, hello: Hello, report: Report | None) -> None:
        self.writer, self.run, self.report = writer, run, report
        left = None if hello.batches is None else max(hello.batches - run.done, 0)
        self.end = None if left is None else -(-left // run.size)
        self.total = None

    @property
    def sequences(self) -> int:
        """That have their place."""
        return int(self.writer.said.get("sequences", 0))

    def drive(self, pool: Pool) -> None:
        """Have all stretches made. What a worker met is raised when the others have made theirs."""
        numbers, failed = self._missing(), None
        while True:
            try:
                while failed is None and pool.idle() and (number := next(numbers, None)) is not None:
                    pool.hand(number)
                if not pool.busy():
                    break
                for number, there in pool.wait(0.2):
                    self.end = self.end if there else min(number, self.end if self.end is not None else number)
            except MoescopeError as error:
                failed = failed or error
            self.writer.seal()
            self.say(*pool.under_way())
        self.writer.seal()
        if failed is not None:
            raise failed

    def _missing(self) -> Iterator[int]:
        for number in count():
            if self.end is not None and number >= self.end:
                return
            if not self.run.has(number):
                yield number

    def say(self, sequences: int = 0, tokens: int = 0) -> None:
        """Report how far it is, over all workers; so many are in stretches that are not made yet."""
        said = self.writer.said
        if self.report is not None and (said.get("batches") or sequences):
            seconds = self.writer.seconds()
            known = {"sequences": self.sequences + sequences, "tokens": self.writer.next["token"] + tokens, "seconds": seconds}
            self.report({**said, "total": said.get("total"), "forwards": self.writer.next["forward"], **known})

    def close(self, last_words: Mapping[str, Any], task: Task) -> int:
        """Join the run to the store; gives its number there. What cannot be right is not kept."""
        writer, resume = self.writer, self.writer.said.get("resume", {})
        made = (int(writer.said.get("batches", 0)) - self.run.done + self.run.size - 1) // self.run.size
        if self.end is not None and made < self.end:
            raise StoreError(f"of {self.end} stretches of the run only the first {made} are there; go on with --resume")
        if not writer.next["forward"]:
            writer.discard()
            raise ModelError(f"{task.model} fired no router in the whole of the data, so there is nothing to store")
        if writer.moved and (task.options.every > 1 or 0 < task.options.logits < 1 or task.options.fraction < 1):
            writer.discard()
            raise ModelError(
                f"{task.model} took other forwards or tokens than its data have, so that --every and --logits chose others "
                "than in one process; nothing of this run is kept: trace it with one process"
            )
        times = {name: resume.get(name, 0.0) for name in ("model_seconds", "trace_seconds")}
        finished = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        final = {**last_words, "status": "complete", "finished": finished, "seconds": writer.seconds(), **times}
        return writer.close(final, writer.said)

    def keep(self) -> None:
        """Let go of the run; nothing stays of one of which nothing was made."""
        if not self.writer.said.get("batches") and not any(self.run.folder.glob("stretch-*[0-9]")):
            self.writer.discard()
        self.writer.release()
