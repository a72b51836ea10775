"""The live table: every family of the installed Transformers, made tiny, traced and proved here and now."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ..contracts import Record, Site, find
from ..errors import InputError, MoescopeError
from ..models import tiny
from ..routers.formula import formula
from .prove import prove
from .watching import observed


@dataclass(frozen=True)
class Family:
    """One row. `reason`: why it is not proved, or what one has to know although it is."""

    model_type: str
    routers: list[str]  # paths, with N for a layer's number
    contract: str
    kinds: list[str]  # token_choice, hash, static
    formula: str
    experts: list[int]  # routed, by layer where layers differ
    top_k: int | None
    shared_experts: int | None
    dense_layers: list[int]  # of the tiny model's layers
    proved: bool
    reason: str = ""
    error: float | None = None  # largest difference between recomputed and real output, relative to the largest value

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def families(names: Iterable[str] = ()) -> Iterator[Family]:
    """A row for each name, or for all families and every model type that looks routed and is none of them.

    InputError at once for a name that is no family; whatever else goes wrong with a family is its row's `reason`.
    """
    chosen = list(names)
    if strange := [name for name in chosen if name not in tiny.names()]:
        raise InputError(f"no family is called {strange[0]!r}; there are {', '.join(tiny.names())}")
    for name in chosen or tiny.names():
        try:
            with one_thread():
                row = _family(name)
        except MoescopeError as error:
            row = _refused(name, str(error))
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            row = _refused(name, f"it could not be run and read here ({type(error).__name__}: {said})")
        yield row
    for name in [] if chosen else tiny.unknown():
        yield _refused(name, "looks routed, but its configuration counts no experts, so it could not be built")


def _family(name: str) -> Family:
    built = tiny.build(name)
    sites = find(built.model)
    proved = prove(built.model, sites, built.inputs)
    with observed(sites) as calls, torch.no_grad():
        built.model(**built.inputs)
    records = {s.name: [call.record for call in calls[s.name]] for s in sites}
    warnings = {s.warning for s in sites if s.warning}
    return Family(
        name,
        list(dict.fromkeys(re.sub(r"\b\d+\b", "N", s.path) for s in sites)),
        ", ".join(dict.fromkeys(s.contract.name for s in sites)),
        list(dict.fromkeys(s.kind for s in sites)),
        _formulas(sites, records),
        list(dict.fromkeys(s.n_experts for s in sites)),
        max((s.top_k for s in sites if s.top_k), default=None),
        max((s.shared or 0) for s in sites),
        _dense(built.model, sites),
        proved=len(proved) == len(sites),
        reason="; ".join(warnings),
        error=max(p.error for p in proved),
    )


def _formulas(sites: list[Site], records: dict[str, list[Record]]) -> str:
    """One line for each kind of router."""
    kinds = dict.fromkeys(s.kind for s in sites)
    return "; ".join(formula([(s, records[s.name]) for s in sites if s.kind == kind]) for kind in kinds)


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and lose where other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _dense(model: nn.Module, sites: list[Site]) -> list[int]:
    """Numbers of the layers, in the lists of layers that hold routers, that have none."""
    stacks: dict[str, set[int]] = {}
    for site in sites:
        if (match := re.match(r"(.*?)(?:^|\.)(\d+)(?:\.|$)", site.name)) is not None:
            stacks.setdefault(match[1], set()).add(int(match[2]))
    lengths = {prefix: len(list(model.get_submodule(prefix).children())) for prefix in stacks}
    return sorted({n for prefix, routed in stacks.items() for n in range(lengths[prefix]) if n not in routed})


def _refused(name: str, reason: str) -> Family:
    return Family(name, [], "", [], "", [], None, None, [], False, reason)
