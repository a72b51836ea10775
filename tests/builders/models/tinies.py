"""A tiny family proved, listened to once, and traced once."""

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

import moescope
from moescope.contracts import Record, Site, find
from moescope.errors import ModelError
from moescope.models import tiny
from moescope.proof import observed, prove


def seen(name: str, dtype: torch.dtype = torch.float32) -> tuple[tiny.TinyModel, list[Site], dict[str, Record]]:
    """A family made tiny, its sites after the proof, and one record of each."""
    built = tiny.build(name, dtype=dtype)
    sites = find(built.model)
    prove(built.model, sites, built.inputs)
    with observed(sites) as calls, torch.no_grad():
        built.model(**built.inputs)
    return built, sites, {s.path: calls[s.name][0].record for s in sites}


def traced(built: tiny.TinyModel, path: Path) -> Any:
    """A store of one forward."""
    with moescope.Tracer(built.model, path, inputs=built.inputs), torch.no_grad():
        built.model(**built.inputs)
    return moescope.open(path)


@cache
def one_of_a_kind() -> list[str]:
    """Families of which no two are alike to a tracer: the first of every way to decide, to run, and to leave out."""
    first: dict[Any, str] = {}
    for name in tiny.names():
        with suppress(ModelError):
            for site in find(tiny.build(name).model):
                first.setdefault(_traits(site), name)
    return sorted(set(first.values()))


def _traits(site: Site) -> tuple[Any, ...]:
    made_of = site.router is None, site.experts is None, bool(site.shared), frozenset(site.roles.values())
    done = site.kind, site.weight_on, site.capacity_factor is None, site.executes_decision, site.repeats, site.images
    return (site.contract.name, *made_of, *done)
