"""Rows of long tables (one a decision, or one an assignment) to arrays of sequences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .._core.captured import Array, Fault


@dataclass
class Rows:
    """Decisions of one sequence: (N,) places and layers, (N, k) experts and weights."""

    place: Array
    layer: Array
    experts: Array
    weights: Array | None = None


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
    if len(np.unique(key)) < len(key):
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
