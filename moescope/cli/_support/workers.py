"""Who makes a trace: this process, processes that it starts, or those that a launcher started."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .collecting import as_usual

if TYPE_CHECKING:
    from ...tracer.many.worker import Task


@dataclass(frozen=True)
class Engine:
    """What was asked: workers (None: this process alone), whether a launcher started this one among others, and where."""

    workers: int | None
    launched: bool
    name: str | None = None
    address: str | None = None
    gpus: int | None = None


def traced(task: "Task", engine: Engine, resume: bool, overwrite: bool, report: Callable[[dict[str, Any]], None]) -> int:
    """Trace; gives the run's number."""
    if not engine.launched and engine.workers is None:
        return _alone(task, resume, overwrite, report)
    as_usual()  # this process only gathers
    task = replace(task, loading={**task.loading, "say": None})  # which cannot be sent, and would be said by each
    if engine.launched:
        from ...tracer.many.launched import trace_launched

        return trace_launched(task, resume, overwrite, report)
    from ...tracer.many.gather import trace_many
    from ...tracer.many.on_ray import OnRay
    from ...tracer.many.processes import Processes

    count = engine.workers or 1
    with OnRay(task, count, engine.address, engine.gpus) if engine.name == "ray" else Processes(task, count) as pool:
        return trace_many(task, pool, resume, overwrite, report)


def _alone(task: "Task", resume: bool, overwrite: bool, report: Callable[[dict[str, Any]], None]) -> int:
    from ...tracer import trace

    loaded = task.loaded()
    as_usual()
    return trace(
        loaded, task.inputs, task.store, options=task.options, reading=task.reading, command=task.command, report=report,
        overrides=task.overrides, seed=task.seed, stream=task.stream, name=task.name, resume=resume, overwrite=overwrite,
        **task.plan,
    )  # fmt: skip
