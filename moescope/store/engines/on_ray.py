"""Queries about a store as tasks of Ray, which are asked again where a worker or a node is lost (extra `ray`)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import InputError, MoescopeError, StoreError
from ..remote.addresses import known_as
from .shared import answers

TRIES = 3
_PARTS = 4  # for every CPU
_OBJECTS = 200 << 20  # bytes of what tasks give back, on one machine


def ray_of() -> Any:
    """The package. InputError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers that it runs
    try:
        import ray
    except ImportError as error:
        raise InputError("engine ray needs the package ray: pip install 'moescope[ray]'") from error
    return ray


def begin_ray(address: str | None, cpus: int = 1) -> bool:
    """Join a cluster, or begin one on this machine; False where that was done. InputError where there is none."""
    ray = ray_of()
    if ray.is_initialized():
        return False
    local = {"num_cpus": max(cpus, os.cpu_count() or 1), "include_dashboard": False, "object_store_memory": _OBJECTS}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", **({} if address else local))
    except (ConnectionError, ValueError) as error:
        raise InputError(f"there is no cluster of Ray at {address}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # it has no class of its own for a node that does not come up
        raise InputError(
            f"Ray does not start: {str(error).splitlines()[0]}; try again when the machine is less busy"
        ) from error
    return True


class RayEngine:
    """Tasks of a cluster, or of this machine; every node must see the store at the same path, or elsewhere by its address."""

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self._ray = ray_of()
        self._ours = begin_ray(address)
        self.parts = max(2, _PARTS * int(self._ray.cluster_resources().get("CPU", 1)))
        self._task = self._ray.remote(max_retries=TRIES, num_cpus=1)(_tried)

    def ask(self, path: Path, opened: tuple[Any, ...] | None, queries: Sequence[str]) -> list[pa.Table]:
        """The answers, in order. StoreError where the store is another than the one that was opened."""
        try:
            found = self._ray.get([self._task.remote(known_as(path), opened, query) for query in queries])
        except self._ray.exceptions.RayError as error:
            raise StoreError(f"a worker of Ray was lost {TRIES + 1} times: {str(error).splitlines()[0]}") from error
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return list(found)

    def close(self) -> None:
        """Leave Ray, if it was begun here."""
        if self._ours:
            self._ours = False
            self._ray.shutdown()


def _tried(path: Path | str, opened: Any, query: str) -> Any:
    """The answer, or what is wrong in one sentence."""
    try:
        return answers(path, opened, query)
    except MoescopeError as error:
        return StoreError(str(error))
