"""The routed row: stacked arrays of a forward → columns ranked by weight, padding left out, and back."""

from typing import Any

import numpy as np

MAX_WIDTH = 16  # four bits of `slots` for each rank
ANY_K = ("expert_choice", "soft", "global")  # kinds whose decisions have any number of experts

Arrays = dict[str, np.ndarray]


def ranked(experts: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """(R, T, k) places by weight, largest first, ties in the router's order, NaN behind numbers, empty places last; None if
    they are so already."""
    k = weights.shape[-1]
    if k == 1:
        return None
    if bool((weights[..., :-1] >= weights[..., 1:]).all()) and bool((experts >= 0).all()):
        return None
    keys = np.where(experts < 0, -np.inf, np.nan_to_num(weights, nan=float(np.finfo(np.float32).min)))
    if bool(np.all(keys[..., :-1] >= keys[..., 1:])):
        return None
    return np.argsort(-keys, axis=-1, kind="stable")


def pack_slots(order: np.ndarray, k: int) -> Any:
    """Four bits per rank: the place that the router itself gave it."""
    shifts = (4 * np.arange(k)).astype(np.uint64)
    return np.bitwise_or.reduce(order.astype(np.uint64) << shifts, axis=-1)


def unpack_slots(slots: np.ndarray, k: int) -> np.ndarray:
    """(..., k) the router's own place of each rank."""
    shifts = (4 * np.arange(k)).astype(np.uint64)
    return ((slots[..., None] >> shifts) & np.uint64(15)).astype(np.int64)


def columns_fixed_k(
    arrays: Arrays, tokens: np.ndarray, routers: np.ndarray, iterations: np.ndarray, forwards: np.ndarray
) -> dict[str, Any]:
    """Columns of routes_<k> (one row per router and token kept) from (R, T, k) arrays; `tokens` is (R, T), -1 for padding, the
    others (R,). What is as usual is not said: iteration 0, slots in order, nothing dropped."""
    experts, weights = arrays["experts"], arrays["weights"]
    count, rows, k = experts.shape
    order = ranked(experts, weights)
    keep = None if bool((tokens >= 0).all()) else (tokens >= 0).reshape(-1)

    def take(values: np.ndarray) -> np.ndarray:
        values = values.reshape(count * rows, *values.shape[2:])
        return values if keep is None else values[keep]

    def by_rank(values: np.ndarray) -> np.ndarray:
        return take(values if order is None else np.take_along_axis(values, order, -1))

    def each(values: np.ndarray, kind: Any) -> Any:
        values = values.astype(kind)
        return values[0] if bool((values == values[0]).all()) else take(np.broadcast_to(values[:, None], (count, rows)))

    columns: dict[str, Any] = {
        "forward": each(forwards, np.uint32),
        "router": each(routers, np.uint32),
        "token": take(tokens).astype(np.uint32),
    }
    if iterations.any():
        columns["iteration"] = each(iterations, np.uint8)
    if order is not None:
        columns["slots"] = take(np.asarray(pack_slots(order, k)))
    if "dropped" in arrays:
        columns["dropped"] = _bits(by_rank(arrays["dropped"]))
    columns |= {name: take(arrays[name]) for name in ("log_sum_exp", "entropy", "margin") if name in arrays}
    if "pool" in arrays:
        columns["pool"] = take(arrays["pool"]).astype(np.uint32)
    return columns | _ranks(by_rank(experts), by_rank(weights), by_rank(arrays["buffer"]) if "buffer" in arrays else None)


def _ranks(experts: np.ndarray, weights: np.ndarray, buffer: np.ndarray | None) -> dict[str, Any]:
    import pyarrow as pa

    columns: dict[str, Any] = {}
    experts, weights = np.ascontiguousarray(experts.T), np.ascontiguousarray(weights.T, np.float32)
    empty = experts < 0
    some = bool(empty.any())
    for rank in range(len(experts)):
        mask = empty[rank] if some else None
        columns[f"e{rank}"] = pa.array(experts[rank], mask=mask)
        columns[f"w{rank}"] = pa.array(weights[rank], mask=mask)
        if buffer is not None:
            columns[f"p{rank}"] = pa.array(np.ascontiguousarray(buffer[:, rank], np.int32), mask=mask)
    return columns


def _bits(dropped: np.ndarray) -> np.ndarray:
    return (dropped.astype(np.uint32) << np.arange(dropped.shape[-1], dtype=np.uint32)).sum(-1, dtype=np.uint32)


def rows_any_k(
    arrays: Arrays, tokens: np.ndarray, routers: np.ndarray, iterations: np.ndarray, forwards: np.ndarray
) -> tuple[Any, Any]:
    """Columns of decisions_long and assignments_long: decisions with any number of experts (-1 = none)."""
    experts, weights = arrays["experts"], arrays["weights"]
    order = ranked(experts, weights)
    place = np.broadcast_to(np.arange(experts.shape[-1]), experts.shape) if order is None else order
    real = tokens >= 0
    router, row = np.nonzero(real)
    dropped = arrays.get("dropped", np.zeros(experts.shape, bool))
    decisions: dict[str, Any] = {
        "forward": forwards[router].astype(np.uint32),
        "router": routers[router].astype(np.uint32),
        "iteration": iterations[router].astype(np.uint8),
        "token": tokens[router, row].astype(np.uint32),
        "selected": ((experts >= 0) & ~dropped).sum(-1)[router, row].astype(np.uint16),
        **{name: arrays[name][router, row] for name in ("log_sum_exp", "entropy", "margin") if name in arrays},
        **({"pool": arrays["pool"][router, row].astype(np.uint32)} if "pool" in arrays else {}),
    }
    sorted_ = {n: np.take_along_axis(arrays[n], place, -1) for n in ("experts", "weights", "buffer", "dispatch") if n in arrays}
    r, t, rank = np.nonzero((sorted_["experts"] >= 0) & real[..., None])
    assignments = {
        "forward": forwards[r].astype(np.uint32),
        "router": routers[r].astype(np.uint32),
        "iteration": iterations[r].astype(np.uint8),
        "token": tokens[r, t].astype(np.uint32),
        "rank": rank.astype(np.uint16),
        "expert": sorted_["experts"][r, t, rank].astype(np.uint16),
        "weight": sorted_["weights"][r, t, rank].astype(np.float32),
        "slot": place[r, t, rank].astype(np.uint16),
        "dropped": np.take_along_axis(dropped, place, -1)[r, t, rank],
    }
    if "buffer" in sorted_:
        assignments["buffer_position"] = sorted_["buffer"][r, t, rank].astype(np.uint32)
    if "dispatch" in sorted_:
        assignments["dispatch_weight"] = sorted_["dispatch"][r, t, rank].astype(np.float32)
    return decisions, assignments


def fits_fixed_k(arrays: Arrays, kind: str) -> bool:
    """Whether decisions have one fixed k that routes_<k> can hold."""
    return kind not in ANY_K and arrays["experts"].shape[-1] <= MAX_WIDTH
