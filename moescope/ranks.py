"""Several processes that run one model together (torchrun), each with a part of its weights: who writes, and do they agree?

Tensor and expert parallelism of Transformers: every process, a rank, runs the whole forward over the same tokens, so that its
routers decide the same in all of them; what lies with one rank alone are columns or experts of the weights. The first rank
writes a trace; the others run along, for their experts are needed, and what they saw is compared with it.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
from torch import distributed, nn

from .errors import InputError, ModelError

STARTED = "torchrun --nproc-per-node 2 -m moescope trace ..."
STARTED_APART = "start them by torchrun, or set both to the first one's host and a free port, as for torch.distributed"


@dataclass(frozen=True)
class Ranks:
    """This process among those that run the model: its number, and how many there are."""

    number: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.number == 0

    def agree(self, asked: Mapping[str, Any]) -> None:
        """InputError, on every rank, unless all were asked the same: what, and which rank says otherwise."""
        said = self.all({name: repr(value) for name, value in asked.items()})
        for number, theirs in enumerate(said):
            for name in sorted(said[0].keys() | theirs.keys()):
                here, there = said[0].get(name, "nothing"), theirs.get(name, "nothing")
                if here != there:
                    raise InputError(
                        f"the processes of this trace disagree: for {name}, rank 0 has {here[:200]} and rank {number} has "
                        f"{there[:200]}; start all of them with the same command, model and data"
                    )

    def all(self, value: Any) -> list[Any]:
        """Every rank's value, in their order, on every rank."""
        said: list[Any] = [None] * self.count
        distributed.all_gather_object(said, value)
        return said

    def shared(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        held = [value]
        distributed.broadcast_object_list(held, src=0)
        return held[0]


def started() -> int:
    """How many processes torchrun (or another launcher) says it started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def restarted() -> bool:
    """Whether a launcher (torchrun, SLURM) started these processes before, and they died."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def begin(apart: bool = False) -> Ranks:
    """Join the other processes, unless that was done; `apart`: each runs a model of its own, and waits for others by the day.

    InputError where there are none.
    """
    if started() < 2:
        raise InputError(f"a model is spread over several processes only where several were started: {STARTED}")
    if apart and not distributed.is_initialized():
        if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise InputError(f"several processes were started (RANK, WORLD_SIZE) without {missing[0]}: {STARTED_APART}")
        _join("gloo", timedelta(days=30))
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        _join("nccl" if torch.cuda.is_available() else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def _join(backend: str, timeout: timedelta | None = None) -> None:
    """Be one of a group under a name that none had before: torchrun's store keeps, when it starts ranks again, where those
    that died listened."""
    how = {} if timeout is None else {"timeout": timeout}
    store, rank, count = next(distributed.rendezvous("env://", **how))
    if timeout is not None:
        store.set_timeout(timeout)
    group = distributed.PrefixStore(_named(store, count) if rank == 0 else _heard(store, rank), store)
    distributed.init_process_group(backend, store=group, rank=rank, world_size=count, timeout=timeout)


def _named(store: Any, count: int) -> str:
    """The name that the first rank chooses, once all others say that they know it."""
    name, others = uuid4().hex, range(1, count)
    while not store.check([f"moescope {name} {rank}" for rank in others]):
        there = [store.get(f"moescope rank {rank}").decode() for rank in others]
        store.set("moescope group", " ".join([name, *there]))
        time.sleep(0.05)
    return name


def _heard(store: Any, rank: int) -> str:
    """The name that the first rank chose when it knew of this process, not of one that had this rank before."""
    own = uuid4().hex
    store.set(f"moescope rank {rank}", own)
    while True:
        name, *there = store.get("moescope group").decode().split()
        if own in there:
            store.set(f"moescope {name} {rank}", "here")
            return str(name)
        time.sleep(0.05)


@contextmanager
def joined(apart: bool = False) -> Iterator[Ranks]:
    """`begin`, and at the end leave the others, if it was here that they were joined."""
    before = distributed.is_initialized()
    ranks = begin(apart)
    try:
        yield ranks
    finally:
        if not before:
            distributed.destroy_process_group()


def together(model: nn.Module) -> Ranks | None:
    """The ranks that run `model` together; None where this process runs it alone.

    ModelError where they do not all see the same tokens, or not every layer, or where their experts are called by other numbers
    than the model's own.
    """
    mesh: Any = getattr(model, "_device_mesh", None)
    if mesh is None or mesh.size() < 2:
        return None
    asked: Any = getattr(getattr(model, "config", None), "distributed_config", None)
    if _size(asked, "fsdp_size") * _size(asked, "dp_replicate_size") > 1:
        raise _refused(
            model, "every rank runs tokens of its own (fsdp_size, dp_replicate_size), of which one alone would be kept"
        )
    if _size(asked, "pp_size") > 1:
        raise _refused(model, "a rank runs some of the layers only (pp_size)")
    if getattr(asked, "enable_expert_parallel", False) and "ep_router" in (getattr(model, "_ep_plan", None) or {}).values():
        raise _refused(model, "its routers give every rank numbers of its own for the experts (Transformers before 5.20)")
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def check_alone(model: nn.Module, what: str) -> None:
    """ModelError for a model that several processes run together, where each would do `what` to the store."""
    if together(model) is not None:
        raise ModelError(f"{type(model).__name__} is run by several processes, which cannot {what} together; load it in one")


def _size(asked: Any, name: str) -> int:
    return int(getattr(asked, name, None) or 1)


def _refused(model: nn.Module, why: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} is spread over processes in a way that cannot be traced: {why}; spread it by "
        "DistributedConfig(tp_plan='auto'), with ep_size=the number of processes for its experts"
    )
