"""Workers that a launcher started (torchrun, srun): every rank claims stretches, the first one gives them their places.

Where the disk has no locks each rank makes those whose turn it is. The launcher ends the others when a rank dies;
started again, they go on with what is there.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from ...errors import MoescopeError
from ...ranks import Ranks, joined, restarted
from ...store.write.change import try_clean_up
from ...store.write.many.stretches import Run
from ...store.write.resume import planned, unfinished
from .gather import Gathered, Report, size_of, writer_of
from .processes import own_devices
from .worker import Hello, Task, Worker, check_same, portable


def trace_launched(task: Task, resume: bool = False, overwrite: bool = False, report: Report | None = None) -> int:
    """Trace as one of the ranks; gives the run's number, on all of them. What one of them met all raise."""
    with joined(apart=True) as ranks:
        again = any(ranks.all(restarted()))  # a machine whose ranks all lived counts no restart
        own_devices(_local("RANK", ranks.number), here := _local("WORLD_SIZE", ranks.count))
        with Worker(task.planned(task.loaded(here)), task.store) as worker:
            hello = worker.hello()
            for other in ranks.all(hello):
                check_same(hello, other)
            resume = ranks.shared(resume or (again and _there(task, hello)))
            if resume and (whole := ranks.shared(_tried(worker.whole) if ranks.first else None)) is not None:
                return int(_raised(whole))
            return _made(task, worker, hello, ranks, resume, overwrite and not again, report)


def _there(task: Task, hello: Hello) -> bool:
    """Whether the store has this trace already, whole or in part: a launcher that starts again says no --resume."""
    if not task.store.exists():
        return False
    fitting = [part for part in unfinished(task.store) if part.head["run"].get("key") == hello.key]
    return bool(fitting) or planned(task.store, hello.key) is not None


def _made(task: Task, worker: Worker, hello: Hello, ranks: Ranks, resume: bool, overwrite: bool, report: Report | None) -> int:
    begun = _tried(lambda: _begun(task, hello, ranks.count, resume, overwrite, report)) if ranks.first else None
    gathered = begun if isinstance(begun, Gathered) else None
    run: Run = _raised(ranks.shared(gathered.run if gathered is not None else begun))
    try:
        while not all(ranks.all(_round(worker, run, ranks, gathered))):
            pass
        return int(_raised(ranks.shared(None if gathered is None else _tried(lambda: _closed(gathered, worker, task)))))
    finally:
        if gathered is not None:
            gathered.keep()
            try_clean_up(task.store)


def _closed(gathered: Gathered, worker: Worker, task: Task) -> int:
    gathered.writer.seal()
    gathered.end = worker.end
    return gathered.close(worker.last_words(gathered.writer.said), task)


def _begun(task: Task, hello: Hello, workers: int, resume: bool, overwrite: bool, report: Report | None) -> Gathered:
    writer = writer_of(task.store, hello, resume, overwrite)
    return Gathered(writer, writer.assign(size_of(hello, task, workers)), hello, report)


def _round(worker: Worker, run: Run, ranks: Ranks, gathered: Gathered | None) -> bool:
    """Make what nobody has and nobody is at; whether all of the run is there then."""
    others = []
    for number in count():
        with _claimed(run, number, ranks) as mine:
            there = worker.make(run, number) if mine else True
        others += [] if mine else [number]
        if gathered is not None:
            gathered.writer.seal()
            gathered.say()
        if not there:
            break
    return all(run.has(number) for number in others if number < worker.end)


@contextmanager
def _claimed(run: Run, number: int, ranks: Ranks) -> Iterator[bool]:
    """Whether a stretch is this rank's to make, while this is open."""
    if run.has(number):
        yield False
        return
    try:
        claim = run.claim(number)
    except OSError:
        yield number % ranks.count == ranks.number
        return
    try:
        yield claim is not None
    finally:
        if claim is not None:
            claim.close()


def _local(name: str, otherwise: int) -> int:
    return int(os.environ.get(f"LOCAL_{name}", otherwise))


def _tried(call: Callable[[], Any]) -> Any:
    """What it gives, or the error, as it can be sent."""
    try:
        return call()
    except MoescopeError as error:
        return portable(error)


def _raised(found: Any) -> Any:
    if isinstance(found, Exception):
        raise found
    return found
