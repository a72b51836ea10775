"""Run a model under a route that was recorded or edited: slots and weights give back exactly what was executed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...contracts import Record, Site
from ...errors import InputError, ModelError
from ...store import Store
from .base import Edit, Undo


@dataclass(frozen=True)
class Route:
    """What one router executed in one forward: experts, weights (T, k) in the router's own order; -1 is an empty place.

    known: (T,) bool, False for rows the record does not hold: padding, which keeps what the router decides, and tokens that the
    router did not see, where it sees some alone.
    dropped: (T, k) bool or None; buffer: (T, k) places in the buffer or None.
    """

    experts: Tensor
    weights: Tensor
    known: Tensor | None = None
    dropped: Tensor | None = None
    buffer: Tensor | None = None


def route_of(record: Record) -> Route:
    """The route of a record that was listened to."""
    parts = (record.experts, record.weights, None, record.dropped, record.buffer)
    return Route(*(None if p is None else p.detach().clone() for p in parts))  # type: ignore[arg-type]


def read_routes(store: Store, run: int, forward: int, keys: Mapping[str, np.ndarray]) -> dict[str, Route]:
    """{router path: route} of one forward of a run. `keys`: {stack: (T,) token key of every place, -1 for padding}.

    InputError where the run or the forward is not in the store.
    """
    routers = store.rows("select router, name, stack, kind, experts, top_k from routers where run = ? order by router", [run])
    if not routers or not store.rows("select 1 from forwards where run = ? and forward = ?", [run, forward]):
        raise InputError(f"{store.path} has no forward {forward} of run {run}: `moescope info` lists its runs")
    found = {}
    for router, name, stack, kind, experts, k in routers:
        rows = store.sql(
            "select token, slot, expert, weight, dropped, buffer_position from assignments "
            "where run = ? and forward = ? and router = ?",
            [run, forward, router],
        ).fetchnumpy()
        seen = store.sql(
            "select distinct token from decisions where run = ? and forward = ? and router = ?", [run, forward, router]
        ).fetchnumpy()["token"]
        if len(seen):
            fixed = kind in ("expert_choice", "global")
            wide = int(experts) if fixed else int(k or max(rows["slot"], default=0) + 1)
            found[name] = _route(rows, seen, keys[stack], wide)
    return found


def _route(rows: Mapping[str, Any], seen: np.ndarray, keys: np.ndarray, k: int) -> Route:
    at, mine = _places(rows["token"], keys)
    slot = rows["slot"][mine].astype(np.int64)
    full = {"expert": -1, "weight": 0.0, "dropped": False, "buffer_position": 0}
    arrays = {n: np.full((len(keys), k), v, np.asarray(v).dtype) for n, v in full.items()}
    for name, array in arrays.items():
        array[at, slot] = np.ma.filled(rows[name][mine], full[name])
    known = np.zeros(len(keys), bool)
    known[_places(seen, keys)[0]] = True
    tensors = {n: torch.from_numpy(a) for n, a in arrays.items()}
    weights = tensors["weight"].float()
    return Route(tensors["expert"], weights, torch.from_numpy(known), tensors["dropped"], tensors["buffer_position"])


def _places(tokens: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in `keys` tokens are, of those that are there; and which of them are."""
    order = np.argsort(keys)
    at = order[np.searchsorted(keys, tokens.astype(np.int64), sorter=order).clip(max=len(keys) - 1)]
    mine = keys[at] == tokens
    return at[mine], mine


@dataclass(frozen=True, kw_only=True)
class Replay(Edit):
    """The routes, by router path, are executed instead of what the routers decide; for one forward of the same size."""

    mode: ClassVar[str] = "replay"
    routes: Mapping[str, Route] = field(repr=False)

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError where a route is of no router here, or has experts that the router lacks."""
        paths = {s.path: s for s in self.where(sites)}
        if strange := sorted(set(self.routes) - set(paths)):
            raise InputError(f"the record does not fit: it has a router {strange[0]}, and the model's are {', '.join(paths)}")
        if missing := sorted(set(paths) - set(self.routes)):
            raise InputError(
                f"the record does not fit: router {missing[0]} of the model has no route in it; name the layers meant"
            )
        for path, route in self.routes.items():
            limit = paths[path].n_experts + paths[path].special_experts
            if route.experts.shape != route.weights.shape or int(route.experts.max()) >= limit:
                raise InputError(
                    f"the record does not fit: router {path} has {limit} experts, its route names {int(route.experts.max())}"
                )

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """Write each route where its router's decision is executed."""
        return [h.remove for s in self.where(sites) for h in _attach(s, self.routes[s.path])]

    def as_dict(self) -> dict[str, Any]:
        """Mode and routers; the routes themselves are what the run records."""
        return {"mode": self.mode, "routers": sorted(self.routes)}


def _attach(site: Site, route: Route) -> list[Any]:
    if site.contract.routing_object and site.kind == "token_choice":
        assert site.experts is not None
        return [
            site.experts.register_forward_pre_hook(lambda _, args: (args[0], _token_choice(site, args[1], route)), prepend=True)
        ]
    gone = site.contract.keeps_drops and route.dropped is not None
    whole = (
        replace(route, experts=route.experts.masked_fill(route.dropped, -1)) if gone and route.dropped is not None else route
    )

    def write(was: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        route = _of_rows(whole, len(was))
        _fits(site, was, route)
        experts = route.experts
        kept = site.kind == "expert_choice" and site.contract.routing_object  # V-MoE: each expert has as many tokens as before
        if kept and bool(((experts.to(was.device) >= 0) & (was < 0)).any()):
            raise ModelError(
                f"router {site.path} lets experts choose: its route can leave tokens out, but not give an expert new ones"
            )
        known = None if route.known is None else route.known.to(was.device)[:, None]
        new = experts.to(was.device, was.dtype), route.weights.to(weights.device, weights.dtype)
        return new if known is None else (torch.where(known, new[0], was), torch.where(known, new[1], weights))

    return list(site.contract.edit(site, write))


def _of_rows(route: Route, rows: int) -> Route:
    """The route of the tokens that a router sees, where these are not all: in their order in the stream."""
    if rows == len(route.experts) or route.known is None or rows != int(route.known.sum()):
        return route
    return replace(route, experts=route.experts[route.known], weights=route.weights[route.known], known=None)


def _token_choice(site: Site, routing: Any, route: Route) -> Any:
    """A V-MoE decision with the route's experts, weights, places and drops."""
    shape = routing.indices.shape
    _fits(site, routing.indices.flatten(0, 1), route)
    device = routing.indices.device
    known = torch.ones(shape[:-1]) if route.known is None else route.known
    known = known.bool().to(device).view(*shape[:-1], 1)
    new = {"indices": route.experts.clamp(min=0), "weights": route.weights, "dropped": route.dropped, "slots": route.buffer}
    there = {name: getattr(routing, name) for name, value in new.items() if value is not None}
    return replace(
        routing, **{n: torch.where(known, new[n].to(device, t.dtype).view(shape), t) for n, t in there.items()}  # type: ignore[union-attr]
    )  # fmt: skip


def _fits(site: Site, was: Tensor, route: Route) -> None:
    if tuple(was.shape) != tuple(route.experts.shape):
        raise InputError(
            f"the record does not fit: router {site.path} decides {tuple(was.shape)} (tokens, experts each), the route has "
            f"{tuple(route.experts.shape)}; replay it on the inputs it was recorded from"
        )
