"""A tiny family proved, listened to once, and traced once."""

from pathlib import Path
from typing import Any

import torch

import moescope
from moescope.contracts import Record, Site, find
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
