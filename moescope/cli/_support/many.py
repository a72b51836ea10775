"""One command in several processes (torchrun), which run one model together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ...errors import InputError

_PLACES = ("device", "device_map", "max_memory")


@contextmanager
def many(model: str, data: str, options: dict[str, Any]) -> Iterator[bool]:
    """Turn --tensor-parallel and --expert-parallel into option `parallel`; gives whether this process is the one that speaks.

    Without them each of the processes is a worker of its own: option `launched`. Usage errors where options do not fit.
    """
    flags = {kind: options.pop(f"{kind}_parallel") for kind in ("tensor", "expert")}
    options["parallel"] = "expert" if flags["expert"] else "tensor" if flags["tensor"] else None
    from ...ranks import joined, started

    options["launched"] = options["parallel"] is None and started() > 1
    if not options["workers"] and (
        given := [name for name in ("engine", "address", "gpus_per_worker") if options[name] is not None]
    ):
        raise click.UsageError(f"--{given[0].replace('_', '-')} says where workers are; say how many with --workers")
    if options["engine"] != "ray" and (options["address"] or options["gpus_per_worker"] is not None):
        raise click.UsageError("--address and --gpus-per-worker are of --engine ray")
    if options["workers"] and (options["parallel"] or options["launched"]):
        raise click.UsageError("--workers starts processes, and a launcher started some already (RANK): leave it out")
    if options["parallel"] is None:
        yield not options["launched"] or os.environ.get("RANK") == "0"
        return
    if placed := [name for name in _PLACES if options.get(name) not in (None, "auto")]:
        named = placed[0].replace("_", "-")
        raise click.UsageError(f"--{named} excludes --tensor-parallel and --expert-parallel: every process has its own device")
    with joined() as ranks:
        ranks.agree({"the model": model, "the data": data, **{f"--{name}": value for name, value in options.items()}})
        yield ranks.first


def alone(otherwise: str) -> None:
    """InputError where a launcher started several processes; `otherwise`: what each would do."""
    from ...ranks import started

    if (count := started()) > 1:
        raise InputError(f"this is one of {count} processes, each of which would {otherwise}")
