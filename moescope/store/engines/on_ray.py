"""Queries about a store as tasks of Ray, which are asked again where a worker or a node is lost (extra `ray`)."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import InputError, MoescopeError, StoreError
from ..remote.addresses import known_as
from .reach import check_answers
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
    """Join a cluster (RAY_ADDRESS, where no address is said), or begin one on this machine; False where that was done.

    InputError where there is none.
    """
    ray = ray_of()
    if ray.is_initialized():
        return False
    local = {"num_cpus": max(cpus, os.cpu_count() or 1), "include_dashboard": False, "object_store_memory": _OBJECTS}
    joined = address or os.environ.get("RAY_ADDRESS") or "local"
    _check(joined)
    if joined == "local":
        _begun_here(local)
        return True
    try:
        with _asked_once():
            ray.init(address=joined, log_to_driver=False, logging_level="error")
    except Exception as error:  # it has no class of its own for a cluster that does not answer
        raise InputError(f"there is no cluster of Ray at {joined}: {_first_line(error)}") from error
    return True


def _begun_here(settings: dict[str, Any]) -> None:
    """Begin Ray, which gives its node 30 seconds, whatever else the machine does: as often as a task is tried."""
    for left in reversed(range(TRIES)):
        try:
            ray_of().init(address="local", log_to_driver=False, logging_level="error", **settings)
            return
        except Exception as error:
            if not left:
                why = _first_line(error)
                raise InputError(f"Ray does not start: {why}; try again when the machine is less busy") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _check(address: str) -> None:
    """InputError for what is no address, or where nobody answers. Other schemes are those of packages that Ray knows."""
    if address not in ("local", "auto") and ("://" not in address or address.startswith("ray://")):
        check_answers("Ray", address, "ray", "auto, HOST:PORT or ray://HOST:PORT")


@contextmanager
def _asked_once() -> Iterator[None]:
    """Ray asks a cluster that does not answer twenty times, for 40 seconds each."""
    name = "RAY_gcs_server_port_wait_time_s"
    ours = name not in os.environ
    if ours:
        os.environ[name] = "1"
    try:
        yield
    finally:
        if ours:
            del os.environ[name]


def check_room(gpus: int = 0) -> None:
    """InputError where no node can ever run what asks for one CPU and so many GPUs, which Ray would wait for."""
    nodes = [node["Resources"] for node in ray_of().nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus for node in nodes):
        wanted = "a CPU" + (f" and {gpus} GPU{'s' * (gpus > 1)}" if gpus else "")
        most = max((node.get("GPU", 0) for node in nodes), default=0) if gpus else 0
        raise InputError(
            f"a worker of Ray needs {wanted}, and no node of the cluster has that"
            f"{f' (at most {most:g} GPUs)' if gpus else ''}; start such a node first"
        )


class RayEngine:
    """Tasks of a cluster, or of this machine; every node must see the store at the same path, or elsewhere by its address."""

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self._ray = ray_of()
        self._ours = begin_ray(address)
        check_room()
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
