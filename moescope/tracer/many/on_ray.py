"""Workers that are actors of Ray, on one machine or a cluster (extra `ray`): lost with a node, they begin again elsewhere.

Every node must see the store's folder at the same path. Exactly once does not come of Ray: a stretch is made once because it is
renamed into place.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...errors import ModelError, MoescopeError
from ...store.engines.on_ray import begin_ray, check_room, ray_of
from ...store.write.many.stretches import Run
from .processes import TRIES
from .worker import Hello, Task, Worker, check_same, portable

PATIENCE_S = 600.0  # for an actor that does not answer: Ray gives a node half a minute, and begins the actor elsewhere
_PAUSE_S = 1.0


class _Away(Exception):
    """An actor does not answer, perhaps because its node is lost."""


class Shards:
    """What an actor is: a worker that is made when it is first asked for anything."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._worker: Worker | None = None

    def do(self, name: str, *arguments: Any) -> tuple[str, Any]:
        """(done, what the worker gives) or (failed, the error)."""
        try:
            if self._worker is None:
                self._worker = Worker(self._task.planned(self._task.loaded()), self._task.store).__enter__()
            return "done", getattr(self._worker, name)(*arguments)
        except Exception as error:
            return "failed", portable(error)

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()


class OnRay:
    """So many actors. Used in a `with` block, at whose end they are gone; and Ray, if it was begun here.

    address: of a cluster that runs (`auto`: the one of this machine); None: one on this machine alone. gpus: of each worker;
    None: one where the cluster has any.
    """

    def __init__(self, task: Task, count: int, address: str | None = None, gpus: int | None = None) -> None:
        self.task, self.count, self._address, self._gpus = task, count, address, gpus
        self.actors: list[Any] = []
        self._doing: dict[Any, tuple[Any, int]] = {}  # future: actor, stretch
        self._hellos: dict[Any, Any] = {}
        self._said: Hello | None = None
        self._run: Any = None
        self._away: dict[Any, float] = {}  # actor: since when it does not answer

    def __enter__(self) -> "OnRay":
        self._ray = ray = ray_of()
        self._ours = begin_ray(self._address, self.count)
        gpus = self._gpus if self._gpus is not None else int(ray.cluster_resources().get("GPU", 0) > 0)
        check_room(gpus)
        kind = ray.remote(max_restarts=-1, max_task_retries=TRIES, num_cpus=1, num_gpus=gpus)(Shards)
        self.actors = [kind.remote(self.task) for _ in range(self.count)]
        self._hellos = {actor.do.remote("hello"): actor for actor in self.actors}
        self._idle: list[Any] = []
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            with suppress(Exception):
                self._ray.kill(actor)
        if self._ours:
            self._ray.shutdown()

    def hello(self) -> Hello:
        """What the first worker says whose routers are proved."""
        while self._said is None:
            self.wait(1.0)
        return self._said

    def whole(self) -> int | None:
        """The run of this trace in the store, if it is complete there."""
        found: int | None = self._asked("whole")
        return found

    def begin(self, run: Run) -> None:
        """What is handed out from now on is of this run."""
        self._run = self._ray.put(run)

    def idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle)

    def busy(self) -> bool:
        """Whether a worker has something to do."""
        return bool(self._doing)

    def hand(self, number: int) -> None:
        """Give a stretch to an idle worker."""
        self._ask(self._idle.pop(0), number)

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        """Stretches that were made up to now, or up to so much later. Raises what a worker met."""
        waiting = [*self._hellos, *self._doing]
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds) if waiting else ([], [])
        found = []
        for future in ready:
            actor, number = (self._hellos.pop(future), None) if future in self._hellos else self._doing.pop(future)
            try:
                said = self._get(future, actor)
            except _Away:
                time.sleep(_PAUSE_S)
                self._ask(actor, number)
                continue
            if number is None:
                check_same(self._said or said, said)
                self._said = self._said or said
            else:
                found.append((number, bool(said)))
            self._idle.append(actor)
        return found

    def _ask(self, actor: Any, number: int | None) -> None:
        """Have an actor make a stretch; None: say hello."""
        if number is None:
            self._hellos[actor.do.remote("hello")] = actor
        else:
            self._doing[actor.do.remote("make", self._run, number)] = actor, number

    def under_way(self) -> tuple[int, int]:
        """Nothing is known of stretches that are being made."""
        return 0, 0

    def last_words(self, so_far: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of the run that are known when it is whole."""
        found: dict[str, Any] = self._asked("last_words", dict(so_far))
        return found

    def _asked(self, name: str, *arguments: Any) -> Any:
        """What an idle actor answers."""
        while True:
            try:
                return self._get(self._idle[0].do.remote(name, *arguments), self._idle[0])
            except _Away:
                time.sleep(_PAUSE_S)

    def _get(self, future: Any, actor: Any) -> Any:
        """What came of it. _Away for an actor of which nothing is known yet but that it does not answer."""
        try:
            name, said = self._ray.get(future)
        except self._ray.exceptions.ActorUnavailableError as error:
            if time.monotonic() - self._away.setdefault(actor, time.monotonic()) > PATIENCE_S:
                raise ModelError(f"a worker of Ray does not answer any more: {str(error).splitlines()[0]}") from error
            raise _Away from error
        except self._ray.exceptions.RayError as error:
            raise ModelError(f"a worker of Ray was lost {TRIES + 1} times: {str(error).splitlines()[0]}") from error
        self._away.pop(actor, None)
        if name == "failed":
            assert isinstance(said, MoescopeError)
            raise said
        return said
