"""Workers that are processes of this machine: one per GPU or group of cores; one that dies is started again."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from ...errors import InputError, ModelError
from ...store.write.many.stretches import Run
from .worker import Hello, Task, Worker, check_same, portable

MOST = 4  # workers for every core or GPU
TRIES = 3  # of a stretch whose worker dies
_SAID = 0.2  # seconds between reports of a worker


def _serve(link: Connection, task: Task, number: int, count: int) -> None:
    """A worker's life: do what is asked until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears Ctrl-C, and closes the link
    own_devices(number, count)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            with Worker(task.planned(task.loaded(count)), task.store) as worker:
                link.send(("hello", worker.hello()))
                while True:
                    name, *arguments = link.recv()
                    link.send((name, _done(link, worker, name, arguments)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as error:
            link.send(("failed", portable(error)))


def _done(link: Connection, worker: Worker, name: str, arguments: list[Any]) -> Any:
    last = [0.0]

    def said(sequences: int, tokens: int) -> None:
        if time.monotonic() - last[0] > _SAID:
            last[0] = time.monotonic()
            link.send(("at", (sequences, tokens)))

    if name == "make":
        run, number = arguments
        return worker.make(run, number, said)
    return getattr(worker, name)(*arguments)


def own_devices(number: int, count: int) -> None:
    """Let worker `number` of `count` see its share of the GPUs: some of its own where there are enough, else one of them."""
    import torch

    there = torch.cuda.device_count()  # asked without a context of CUDA
    if there and count > 1:
        each = max(1, there // count)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(there)))).split(",")
        first = number * each if count <= there else number % there
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[first : first + each])


class _Seat:
    """A place for a worker: the process that fills it, and what it is doing."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Any = None
        self.link: Any = None
        self.hello: Hello | None = None
        self.doing: int | None = None
        self.at = 0, 0
        self.deaths = 0


class Processes:
    """So many workers of this machine. Used in a `with` block, at whose end they are gone."""

    def __init__(self, task: Task, count: int) -> None:
        import torch

        places = max(os.cpu_count() or 1, torch.cuda.device_count())
        if count > MOST * places:
            raise InputError(
                f"{count} workers would wait for each other on {places} cores or GPUs; ask for {MOST * places} at most"
            )
        self.task, self.count = task, count
        self._context = multiprocessing.get_context("spawn")
        self._seats = [_Seat(number) for number in range(count)]
        self._run: Run | None = None
        self._again: list[int] = []
        self._died: dict[int, int] = {}

    def __enter__(self) -> "Processes":
        for seat in self._seats:
            self._start(seat)
        return self

    def __exit__(self, *_: object) -> None:
        for seat in self._seats:
            if seat.link is not None:
                seat.link.close()
            seat.process.kill()  # what it was at has no name yet
        for seat in self._seats:
            seat.process.join()

    def _start(self, seat: _Seat) -> None:
        seat.link, theirs = self._context.Pipe()
        seat.hello, seat.doing, seat.at = None, None, (0, 0)
        seat.process = self._context.Process(
            target=_serve, args=(theirs, self.task, seat.number, self.count), name=f"moescope-worker-{seat.number}", daemon=True
        )
        seat.process.start()
        theirs.close()

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [seat.process.pid for seat in self._seats]

    def hello(self) -> Hello:
        """What the first worker says whose routers are proved."""
        while True:
            for seat in self._seats:
                if seat.hello is not None:
                    return seat.hello
            self.wait(1.0)

    def whole(self) -> int | None:
        """The run of this trace in the store, if it is complete there."""
        found: int | None = self._asked("whole")
        return found

    def begin(self, run: Run) -> None:
        """What is handed out from now on is of this run."""
        self._run = run

    def idle(self) -> bool:
        """Whether a worker has nothing to do."""
        self._hand_again()
        return any(seat.hello is not None and seat.doing is None for seat in self._seats)

    def busy(self) -> bool:
        """Whether a worker has something to do, or a stretch waits for one."""
        waiting = bool(self._again) and any(seat.link is not None for seat in self._seats)
        return waiting or any(seat.doing is not None for seat in self._seats)

    def hand(self, number: int) -> None:
        """Give a stretch to an idle worker."""
        seat = next(seat for seat in self._seats if seat.hello is not None and seat.doing is None)
        seat.doing, seat.at = number, (0, 0)
        with suppress(OSError):  # it died just now, which is heard next
            seat.link.send(("make", self._run, number))

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        """Stretches that were made up to now, or up to so much later. Raises what a worker met."""
        self._hand_again()
        links = {seat.link: seat for seat in self._seats if seat.link is not None}
        found: list[tuple[int, bool]] = []
        for link in wait(list(links), seconds):
            seat = links[link]  # type: ignore[index]
            try:
                name, said = seat.link.recv()
            except (EOFError, ConnectionResetError):
                self._dead(seat)
                continue
            found += self._heard(seat, name, said)
        return found

    def _heard(self, seat: _Seat, name: str, said: Any) -> Iterator[tuple[int, bool]]:
        if name == "failed":
            seat.link.close()
            seat.link, seat.hello, seat.doing = None, None, None
            raise said
        if name == "hello":
            self._same(said)
            seat.hello = said
        elif name == "at":
            seat.at = said
        elif name == "make":
            number, seat.doing, seat.at = seat.doing, None, (0, 0)
            return iter([(number, said)]) if number is not None else iter(())
        return iter(())

    def _same(self, hello: Hello) -> None:
        """ModelError unless all workers have the same model with the same routers, by their own proofs."""
        other = next((seat.hello for seat in self._seats if seat.hello is not None), hello)
        check_same(other, hello)

    def _dead(self, seat: _Seat) -> None:
        seat.process.join()
        seat.link.close()
        lost, code = seat.doing, seat.process.exitcode
        key = -1 - seat.number if lost is None else lost
        self._died[key] = self._died.get(key, 0) + 1
        if self._died[key] >= TRIES:
            seat.link, seat.doing, seat.hello = None, None, None
            what = "before its routers were proved" if lost is None else f"at stretch {lost}"
            raise ModelError(
                f"a worker died {TRIES} times {what} (exit code {code}; -9 is often too little memory): take fewer workers, or "
                "trace with one process to see why"
            )
        if lost is not None:
            self._again.append(lost)
        self._start(seat)

    def _hand_again(self) -> None:
        while self._again and any(seat.hello is not None and seat.doing is None for seat in self._seats):
            self.hand(self._again.pop(0))

    def under_way(self) -> tuple[int, int]:
        """Sequences and tokens of stretches that are being made."""
        at = [seat.at for seat in self._seats]
        return sum(sequences for sequences, _ in at), sum(tokens for _, tokens in at)

    def last_words(self, so_far: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of the run that are known when it is whole."""
        found: dict[str, Any] = self._asked("last_words", so_far)
        return found

    def _asked(self, name: str, *arguments: Any) -> Any:
        """What a worker answers; another one where it dies."""
        while True:
            self.hello()
            seat = next(seat for seat in self._seats if seat.hello is not None)
            with suppress(EOFError, OSError), self._alone(seat):
                seat.link.send((name, *arguments))
                while True:
                    heard, said = seat.link.recv()
                    if heard == name:
                        return said
                    if heard == "failed":
                        raise said

    @contextmanager
    def _alone(self, seat: _Seat) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self._dead(seat)
            raise
