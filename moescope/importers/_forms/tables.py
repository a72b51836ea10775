"""Rows of long tables (one a decision, or one an assignment) to arrays of sequences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.captured import Array, Fault
from .._core.model import Model


@dataclass
class Rows:
    """Decisions of one sequence: (N,) places and layers, (N, k) experts and weights."""

    place: Array
    layer: Array
    experts: Array
    weights: Array | None = None


def listed(part: Mapping[str, Any], where: str, model: Model, weighed: bool) -> Rows:
    """Rows that are decisions: `e` and `w` are lists, null where a place is empty."""
    sizes, experts = np.asarray(part["e"].value_lengths()), part["e"].flatten()
    weights = np.asarray(part["w"].flatten(), np.float32) if weighed else None
    place, layer = np.asarray(part["p"]), np.asarray(part["l"])
    if experts.null_count:
        there = np.asarray(experts.is_valid())
        sizes = np.add.reduceat(np.append(there, False), np.append(0, np.cumsum(sizes))[:-1]) * (sizes > 0)
        weights = None if weights is None else weights[there]
        experts = experts.drop_null()
    return _padded(Rows(place, layer, np.asarray(experts), weights), sizes, where, model)


def assigned(part: Mapping[str, Any], where: str, model: Model, weighed: bool, ordered: bool) -> Rows:
    """Rows that are assignments: those of a decision in the order of `o`, which has to be one where `ordered`."""
    place, layer, order = (np.asarray(part[name]) for name in ("p", "l", "o"))
    sort = np.lexsort((order, layer, place))
    place, layer, order = place[sort], layer[sort], order[sort]
    same = (place[1:] == place[:-1]) & (layer[1:] == layer[:-1])
    if ordered and (same & (order[1:] == order[:-1])).any():
        at = int(np.argmax(same & (order[1:] == order[:-1])))
        raise Fault(
            f"{where}: two rows of rank or slot {order[at]} for the token at place {place[at]} in layer {layer[at]}: give each "
            "sequence a name of its own, or leave doubled rows out"
        )
    begins = np.append(0, np.flatnonzero(~same) + 1)
    weights = np.asarray(part["w"], np.float32)[sort] if weighed else None
    sizes = np.diff(np.append(begins, len(place)))
    return _padded(Rows(place[begins], layer[begins], np.asarray(part["e"])[sort], weights), sizes, where, model)


def _padded(rows: Rows, sizes: Array, where: str, model: Model) -> Rows:
    """Experts and weights of decisions one after the other as (N, k), -1 and NaN behind those that are there."""
    k = model.top_k
    if (sizes != k).any() and not model.varies:
        k = int(sizes.max())
        if (sizes != k).any():
            raise Fault(f"{where}: decisions of {int(sizes.min())} to {k} experts")
    elif sizes.max(initial=0) > k:
        raise Fault(f"{where}: a decision of {int(sizes.max())} experts, and {model.name} chooses {k}: it is another model")
    if (sizes == k).all():
        weights = None if rows.weights is None else rows.weights.reshape(-1, k)
        return Rows(rows.place, rows.layer, rows.experts.reshape(-1, k), weights)
    there = np.arange(k) < sizes[:, None]
    experts = np.full(there.shape, -1, np.int64)
    experts[there] = rows.experts
    heavy = None
    if rows.weights is not None:
        heavy = np.full(there.shape, np.nan, np.float32)
        heavy[there] = rows.weights
    return Rows(rows.place, rows.layer, experts, heavy)


def stacked(rows: Rows, routed: Sequence[int], where: str) -> tuple[Array, Array | None, int]:
    """(T, routers, k) experts, -1 where there is no row, their weights, and the first place.

    Fault for a layer without a router and for two rows of one decision.
    """
    first = int(rows.place.min())
    length = int(rows.place.max()) - first + 1
    if length > 4 * len(rows.place) + 1024:
        raise Fault(
            f"{where}: {len(rows.place)} decisions at places {first} to {first + length - 1}, which are no places of tokens"
        )
    table = np.full(int(max(routed)) + 1, -1)
    table[list(routed)] = np.arange(len(routed))
    inside = (rows.layer >= 0) & (rows.layer < len(table))
    router = np.where(inside, table[np.where(inside, rows.layer, 0)], -1)
    if (router < 0).any():
        other = int(rows.layer[np.argmax(router < 0)])
        raise Fault(f"{where}: a decision in layer {other}, which has no router (routers are in {_some(routed)})")
    key = (rows.place - first) * len(routed) + router
    if (np.bincount(key, minlength=1).max() > 1) if len(key) else False:
        twice = int(key[np.flatnonzero(np.bincount(key)[key] > 1)[0]])
        raise Fault(
            f"{where}: two decisions of the token at place {first + twice // len(routed)} in layer "
            f"{routed[twice % len(routed)]}: "
            "give each sequence a name of its own"
        )
    k = rows.experts.shape[1]
    experts = np.full((length * len(routed), k), -1, np.int32)
    experts[key] = rows.experts
    weights = None
    if rows.weights is not None:
        weights = np.full((length * len(routed), k), np.nan, np.float32)
        weights[key] = rows.weights
        weights = weights.reshape(length, len(routed), k)
    return experts.reshape(length, len(routed), k), weights, first


def _some(routed: Sequence[int]) -> str:
    return ", ".join(map(str, routed[:6])) + (" ..." if len(routed) > 6 else "")


def stretches(values: Array) -> Iterator[tuple[int, int]]:
    """Where equal neighbours begin and end."""
    cuts = np.flatnonzero(values[1:] != values[:-1]) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(values)])
