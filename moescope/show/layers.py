"""Routers as readers of a page know them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ROUTERS = """
select router, name, layer, stack, block_type, kind, experts, top_k, shared_experts, score, capacity_factor,
       (select count(*) from experts e where e.router = r.router and e.role in ('identity', 'skip', 'null')) as idle
from routers r where run = ? order by stack, layer, router"""


@dataclass(frozen=True)
class Layer:
    """One router, as a reader names it."""

    label: str  # "layer 3", "encoder 1"
    router: int
    layer: int
    stack: str
    experts: int
    top_k: int | None
    group: str = ""  # the stack, or "decoder attention" where a layer of it has two routers: see moescope.store.groups

    idle: int = 0  # experts that a token may choose beside the routed ones, and that compute nothing (identity, skip, null)

    @property
    def choices(self) -> int:
        """Experts that a token chooses among."""
        return max(self.experts + self.idle, 1)

    def pairs(self, each: float) -> float:
        """Of the tokens of an expert, the share that chance gives to another one as well, where a token has `each` experts."""
        return max(each - 1, 0.0) / max(self.choices - 1, 1)

    @property
    def even(self) -> float:
        """Share of an expert when the load is even."""
        return 1 / max(self.experts, 1)


def named(found: Iterable[Mapping[str, Any]], groups: Mapping[int, str]) -> list[Layer]:
    """Layers of the rows of ROUTERS; `groups`: of GROUPS, {router: group}."""
    rows = list(found)
    many = len({r["stack"] for r in rows}) > 1
    plain = [f"{r['stack'] or 'layer'} {r['layer']}" if many else f"layer {r['layer']}" for r in rows]
    known = []
    for r, name in zip(rows, plain, strict=True):
        stack = r["stack"] or ""
        group = groups.get(r["router"], stack)
        label = f"{name} {group.removeprefix(stack).strip()}" if plain.count(name) > 1 else name
        known.append(Layer(label, r["router"], r["layer"], stack, r["experts"] or 0, r["top_k"], group, r["idle"]))
    return known
