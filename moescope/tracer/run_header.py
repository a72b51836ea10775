"""What a run says of itself before its first row."""

import platform
import time
from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import nn

from ..contracts import Site
from ..decisions import ANY_K
from ..proof import Proved
from ..routers.compiled import CURE, has_run
from ..words import listed


class RouterRow(TypedDict):
    """A row of `routers`; schema.sql says what its columns mean."""

    router: int
    name: str
    layer: int | None
    stack: str
    block_type: str
    contract: str
    kind: str
    experts: int
    top_k: int | None
    shared_experts: int | None
    score: str | None
    weight_on: str
    capacity_factor: float | None
    extra: dict[str, Any]
    decides_on: str
    pool_axes: str | None
    parent_router: str | None
    parent_expert: int | None


class ExpertRow(TypedDict):
    """A row of `experts`."""

    router: int
    expert: int
    role: str
    expert_name: str | None


class RunHeader(TypedDict):
    """What is known of a run before its first row: columns of `runs` and `models`, rows of `routers` and `experts`."""

    run: dict[str, Any]
    model: dict[str, Any]
    routers: list[RouterRow]
    experts: list[ExpertRow]


def run_header(run: Mapping[str, Any], model: Mapping[str, Any], sites: list[Site]) -> RunHeader:
    """The run, its model, routers and experts, by the columns of the schema."""
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return {
        "run": {"started": started, "host": f"{platform.system()} {platform.machine()}", **run},
        "model": dict(model),
        "routers": [_router(site, sites) for site in sites],
        "experts": [expert for site in sites for expert in _experts(site)],
    }


def _router(site: Site, sites: list[Site]) -> RouterRow:
    parent = next((other for other in sites if other.name == site.parent_site), None)
    own = {"special_experts": site.special_experts, "repeats": site.repeats, "warning": site.warning}
    extra = site.rule | {name: value for name, value in own.items() if value}
    if site.output_scale != 1:
        extra |= {"output_scale": site.output_scale}
    return {
        "router": site.key,
        "name": site.path,
        "layer": site.layer,
        "stack": site.stack,
        "block_type": site.block_type,
        "contract": site.contract.name,
        "kind": site.kind,
        "experts": site.n_experts,
        "top_k": site.top_k if site.kind not in ANY_K else None,
        "shared_experts": site.shared,
        "score": site.score,
        "weight_on": site.weight_on,
        "capacity_factor": site.capacity_factor,
        "extra": extra,
        "decides_on": site.unit,
        "pool_axes": site.pool_axes,
        "parent_router": parent.path if parent is not None else None,
        "parent_expert": site.parent_expert,
    }


def _experts(site: Site) -> list[ExpertRow]:
    roles = site.roles  # {expert number: role} beside the routed ones
    numbers = [*range(site.n_experts), *sorted(n for n in roles if n >= site.n_experts)]
    names = site.expert_names
    return [{"router": site.key, "expert": n, "role": roles.get(n, "routed"), "expert_name": names.get(n)} for n in numbers]


def proof_notes(proof: list[Proved]) -> list[str]:
    """What the proof could not show, each sentence once with the routers it is of."""
    return _together([(p.note, p.router) for p in proof if p.note])


def contract_warnings(sites: list[Site], fired: set[int]) -> list[str]:
    """What contracts have to say of their routers, each once; and which routers were never asked in this run."""
    silent = "never fired in this run, so that nothing of it is stored"
    said = [(silent, site.path) for site in sites if site.key not in fired]
    return _together(said + [(site.warning, site.path) for site in sites if site.warning])


def _together(pairs: list[tuple[str, str]]) -> list[str]:
    """Each sentence once, behind the routers (by path) of which it is said."""
    said: dict[str, list[str]] = {}
    for text, path in pairs:
        said.setdefault(text, []).append(path)
    return [f"{listed(paths)}: {text}" for text, paths in said.items()]


def why_nothing(model: nn.Module, outside: int) -> str:
    """Why a trace holds nothing, where routers fired `outside` times in no forward of the model."""
    kind = type(model).__name__
    if outside:
        return f"routers fired {outside} times, but never inside a forward of {kind}: trace the module that your code calls"
    cure = f"; if what ran was compiled (torch.compile) before, its graphs ran past the Tracer: {CURE}" if has_run() else ""
    if torch.cuda.is_initialized():
        cure += "; replays of a CUDA graph run past it too: call the model itself"
    return f"{kind} was never run inside the Tracer, so there is nothing to store{cure}"
