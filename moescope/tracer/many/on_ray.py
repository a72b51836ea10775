"""Workers that are actors of Ray, on one machine or a cluster (extra `ray`): lost with a node, they begin again elsewhere.

Every node must see the store's folder at the same path. Exactly once does not come of Ray: a stretch is made once because it is
renamed into place.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...errors import ModelError, MoescopeError
from ...store.engines.on_ray import begin_ray, ray_of
from ...store.write.many.stretches import Run
from .processes import TRIES
from .worker import Hello, Task, Worker, check_same, portable


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

    def __enter__(self) -> "OnRay":
        self._ray = ray = ray_of()
        self._ours = begin_ray(self._address, self.count)
        gpus = self._gpus if self._gpus is not None else int(ray.cluster_resources().get("GPU", 0) > 0)
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
        found: int | None = self._get(self._idle[0].do.remote("whole"))
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
        actor = self._idle.pop(0)
        self._doing[actor.do.remote("make", self._run, number)] = actor, number

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        """Stretches that were made up to now, or up to so much later. Raises what a worker met."""
        waiting = [*self._hellos, *self._doing]
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds) if waiting else ([], [])
        found = []
        for future in ready:
            if future in self._hellos:
                actor = self._hellos.pop(future)
                hello = self._get(future)
                check_same(self._said or hello, hello)
                self._said = self._said or hello
            else:
                actor, number = self._doing.pop(future)
                found.append((number, bool(self._get(future))))
            self._idle.append(actor)
        return found

    def under_way(self) -> tuple[int, int]:
        """Nothing is known of stretches that are being made."""
        return 0, 0

    def last_words(self, so_far: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of the run that are known when it is whole."""
        found: dict[str, Any] = self._get(self._idle[0].do.remote("last_words", dict(so_far)))
        return found

    def _get(self, future: Any) -> Any:
        try:
            name, said = self._ray.get(future)
        except self._ray.exceptions.RayError as error:
            raise ModelError(f"a worker of Ray was lost {TRIES + 1} times: {str(error).splitlines()[0]}") from error
        if name == "failed":
            assert isinstance(said, MoescopeError)
            raise said
        return said
