"""Which experts to ablate, and which others to compare them with: of the same router with the nearest load, and at random."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...contracts import Site
from ...errors import InputError
from ..edits.selection import check_experts, chosen

Experts = tuple[tuple[str, tuple[int, ...]], ...]
"""((router path, experts), ...), sorted: a set of experts of one or several routers."""


@dataclass(frozen=True)
class Job:
    """A set of experts to ablate, with the sets it is compared with."""

    target: Experts
    load: Experts | None
    random: tuple[Experts, ...]

    @property
    def sets(self) -> list[Experts]:
        """All sets that have to be run for it."""
        return [self.target, *([self.load] if self.load else []), *self.random]


def wanted(
    sites: Sequence[Site], asked: Mapping[tuple[str | None, int], list[int] | None] | None, sweep: bool
) -> list[Experts]:
    """Sets of experts: with `sweep` each alone (all of them where `asked` is None), else everything asked for as one set.

    InputError for layers and experts that are not there, or for no sweep and nothing asked.
    """
    if asked is None:
        if not sweep:
            raise InputError("say which experts to ablate, LAYER:EXPERTS such as 3:5,7, or --sweep for each one of the model")
        asked = {(s.stack, s.layer or 0): None for s in sites}
    found: dict[str, list[int]] = {}
    for (stack, layer), experts in asked.items():
        for site in chosen(sites, layer, stack):
            found[site.path] = check_experts([site], range(site.n_experts) if experts is None else experts)
    if sweep:
        return [((path, (e,)),) for path, experts in found.items() for e in experts]
    return [tuple((path, tuple(experts)) for path, experts in sorted(found.items()))]


def jobs(targets: Sequence[Experts], loads: Mapping[str, np.ndarray], count: int = 3, seed: int = 0) -> list[Job]:
    """Each target with its controls. `loads`: {router path: (E,) share of assignments in the baseline}; `count` random sets."""
    rng = np.random.default_rng(seed)
    return [
        Job(t, _nearest(t, loads), tuple(dict.fromkeys(r for _ in range(count) if (r := _drawn(t, loads, rng)))))
        for t in targets
    ]


def load_of(experts: Experts, loads: Mapping[str, np.ndarray]) -> float:
    """Share of the assignments of the routers concerned that the set had in the baseline."""
    return float(sum(loads[path][list(which)].sum() for path, which in experts) / max(len(experts), 1))


def _nearest(target: Experts, loads: Mapping[str, np.ndarray]) -> Experts | None:
    """For each expert, another one outside the set whose load is nearest; None where too few are left."""
    found = []
    for path, experts in target:
        load, taken = loads[path], set(experts)
        for expert in sorted(experts, key=lambda e: -load[e]):
            free = [e for e in range(len(load)) if e not in taken]
            if not free:
                return None
            taken.add(min(free, key=lambda e: abs(load[e] - load[expert])))
        found.append((path, tuple(sorted(taken - set(experts)))))
    return tuple(found)


def _drawn(target: Experts, loads: Mapping[str, np.ndarray], rng: np.random.Generator) -> Experts | None:
    found = []
    for path, experts in target:
        free = [e for e in range(len(loads[path])) if e not in experts]
        if len(free) < len(experts):
            return None
        found.append((path, tuple(sorted(int(e) for e in rng.choice(free, len(experts), replace=False)))))
    return tuple(found)
