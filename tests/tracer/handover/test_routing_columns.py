"""Decisions become columns by rank: largest weight first, ties in the router's order, NaN behind numbers, empty places last;
places in buffers, drops and slots go with their expert. Against a recount that sorts row by row."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from moescope import decisions as routing

NAN = math.nan
Row = dict[str, Any]


def ways(experts: list[int], weights: list[float]) -> list[int]:
    """The router's places in the order of rank."""
    known = [e >= 0 and not math.isnan(w) for e, w in zip(experts, weights)]
    return sorted(range(len(experts)), key=lambda i: (experts[i] < 0, not known[i], -weights[i] if known[i] else 0.0))


ORDERS: list[tuple[list[int], list[float], list[int]]] = [
    ([4, 2, 7], [0.5, 0.3, 0.2], [0, 1, 2]),
    ([4, 2, 7], [0.2, 0.3, 0.5], [2, 1, 0]),
    ([4, 2, 7], [0.3, 0.4, 0.3], [1, 0, 2]),  # a tie
    ([4, 2, 7], [0.0, 0.0, 0.0], [0, 1, 2]),  # weights of nothing keep the router's order
    ([4, 2, 7], [0.0, 0.5, 0.0], [1, 0, 2]),
    ([4, 2, 7], [-0.5, 0.0, -0.1], [1, 2, 0]),
    ([-1, 2, 7], [0.9, 0.2, 0.3], [2, 1, 0]),  # an empty place has whatever weight
    ([-1, 2, 7], [0.0, 0.0, 0.0], [1, 2, 0]),
    ([-1, 2, -1], [0.0, -0.5, 0.0], [1, 0, 2]),
    ([4, 2, 7], [NAN, 0.5, 0.1], [1, 2, 0]),
    ([4, 2, 7], [NAN, -0.5, NAN], [1, 0, 2]),
    ([4, 2, 7], [0.1, NAN, 0.5], [2, 0, 1]),
    ([-1, 2, 7], [0.5, NAN, 0.1], [2, 1, 0]),
    ([-1, 2, 7], [NAN, NAN, NAN], [1, 2, 0]),
    ([4, 2, -1], [math.inf, NAN, 0.3], [0, 1, 2]),
]


@pytest.mark.parametrize(("experts", "weights", "order"), ORDERS)
def test_ranks(experts: list[int], weights: list[float], order: list[int]) -> None:
    assert ways(experts, weights) == order
    found = routing.ranked(np.array([[experts]]), np.array([[weights]], "f4"))
    assert ([0, 1, 2] if found is None else found[0, 0].tolist()) == order


def arrays(rng: np.random.Generator, k: int, form: str) -> dict[str, np.ndarray]:
    """Three routers by seven tokens."""
    shape = 3, 7, k
    experts = np.argsort(rng.random((3, 7, max(k, 2) + 3)), axis=-1)[..., :k]
    weights = rng.integers(0, 5, shape).astype("f4") / 4  # with ties and zeros
    if form == "in order":
        weights = -np.sort(-weights, axis=-1)
    if form == "empty":
        experts[rng.random(shape) < 0.3] = -1
    if form == "NaN":
        weights[rng.random(shape) < 0.3] = NAN
    return {
        "experts": experts, "weights": weights, "buffer": rng.integers(0, 99, shape),
        "dropped": (rng.random(shape) < 0.3) & (experts >= 0),
        "pool": rng.integers(0, 4, (3, 7)),
        **{n: rng.random((3, 7)).astype("f4") for n in ("log_sum_exp", "entropy", "margin")},
    }  # fmt: skip


TOKENS = np.array([[5, 6, -1, 7, 8, -1, 9], [5, 6, -1, 7, 8, -1, 9], [-1, -1, 3, -1, 4, 2, -1]])
ROUTERS, ITERATIONS, FORWARDS = np.array([4, 5, 9]), np.array([0, 1, 0]), np.array([2, 2, 3])


def recounted(some: dict[str, np.ndarray]) -> list[Row]:
    """One row per decision, experts and what goes with them by rank."""
    found = []
    for r in range(3):
        for t in range(7):
            if TOKENS[r, t] < 0:
                continue
            order = ways(some["experts"][r, t].tolist(), some["weights"][r, t].tolist())
            by_rank = {n: [some[n][r, t, i].item() for i in order] for n in ("experts", "weights", "buffer", "dropped")}
            row = {n: some[n][r, t].item() for n in ("log_sum_exp", "entropy", "margin", "pool")}
            where = {"forward": FORWARDS[r], "router": ROUTERS[r], "iteration": ITERATIONS[r], "token": TOKENS[r, t]}
            found.append({n: int(v) for n, v in where.items()} | row | by_rank | {"slots": order})
    return found


def plain(values: Any) -> list[Any]:
    return values.to_pylist() if isinstance(values, pa.Array) else values.tolist()


def said(values: list[Any]) -> list[Any]:
    """With NaN as a word, so that it is equal to itself."""
    return ["NaN" if isinstance(v, float) and math.isnan(v) else v for v in values]


@pytest.mark.parametrize("k", [1, 2, 3, 16])
@pytest.mark.parametrize("form", ["in order", "out of order", "empty", "NaN"])
def test_wide_columns(k: int, form: str) -> None:
    some = arrays(np.random.default_rng(k), k, form)
    columns = {n: plain(v) for n, v in routing.columns_fixed_k(some, TOKENS, ROUTERS, ITERATIONS, FORWARDS).items()}
    rows = recounted(some)
    for name in ("forward", "router", "iteration", "token", "log_sum_exp", "entropy", "margin", "pool"):
        assert columns[name] == [row[name] for row in rows], name
    for rank in range(k):
        there = [row["experts"][rank] >= 0 for row in rows]
        for letter, name in (("e", "experts"), ("w", "weights"), ("p", "buffer")):
            expected = said([row[name][rank] if some else None for row, some in zip(rows, there)])
            assert said(columns[f"{letter}{rank}"]) == expected, (letter, rank)
    assert columns["dropped"] == [sum(lost << rank for rank, lost in enumerate(row["dropped"])) for row in rows]
    if "slots" in columns:
        assert columns["slots"] == [sum(slot << 4 * rank for rank, slot in enumerate(row["slots"])) for row in rows]
        assert routing.unpack_slots(np.array(columns["slots"], np.uint64), k).tolist() == [row["slots"] for row in rows]
    else:
        assert all(row["slots"] == list(range(k)) for row in rows)


@pytest.mark.parametrize("form", ["in order", "out of order", "empty", "NaN"])
def test_long_columns(form: str) -> None:
    some = arrays(np.random.default_rng(7), 4, form) | {"dispatch": np.random.default_rng(8).random((3, 7, 4)).astype("f4")}
    decisions, assignments = (
        {n: plain(v) for n, v in d.items()} for d in routing.rows_any_k(some, TOKENS, ROUTERS, ITERATIONS, FORWARDS)
    )
    rows = recounted(some)
    for name in ("forward", "router", "iteration", "token", "log_sum_exp", "entropy", "margin", "pool"):
        assert decisions[name] == [row[name] for row in rows], name
    ran = [sum(e >= 0 and not lost for e, lost in zip(row["experts"], row["dropped"])) for row in rows]
    assert decisions["selected"] == ran
    each = [(row, rank) for row in rows for rank in range(4) if row["experts"][rank] >= 0]
    for name in ("forward", "router", "iteration", "token"):
        assert assignments[name] == [row[name] for row, _ in each]
    for name, of in (
        ("expert", "experts"),
        ("weight", "weights"),
        ("buffer_position", "buffer"),
        ("slot", "slots"),
        ("dropped", "dropped"),
    ):
        assert said(assignments[name]) == said([row[of][rank] for row, rank in each]), name
    assert assignments["rank"] == [rank for _, rank in each]
    places = {(int(ROUTERS[r]), int(TOKENS[r, t])): (r, t) for r in range(3) for t in range(7)}
    dispatch = [some["dispatch"][(*places[row["router"], row["token"]], row["slots"][rank])].item() for row, rank in each]
    assert assignments["dispatch_weight"] == dispatch


def test_what_is_as_usual_is_not_said() -> None:
    some = {"experts": np.array([[[1, 0]]]), "weights": np.array([[[0.5, 0.5]]], "f4")}
    columns = routing.columns_fixed_k(some, np.array([[3]]), np.array([1]), np.array([0]), np.array([2]))
    assert {n: plain(np.atleast_1d(v)) if not isinstance(v, pa.Array) else v.to_pylist() for n, v in columns.items()} == {
        "forward": [2], "router": [1], "token": [3], "e0": [1], "w0": [0.5], "e1": [0], "w1": [0.5],
    }  # fmt: skip


@pytest.mark.parametrize(("k", "kind", "fits"), [(16, "token_choice", True), (17, "token_choice", False),
                                                 (2, "expert_choice", False),
                                                 (2, "soft", False), (1, "static", True)])  # fmt: skip
def test_which_decisions_are_wide(k: int, kind: str, fits: bool) -> None:
    assert routing.fits_fixed_k({"experts": np.zeros((1, 1, k), int)}, kind) is fits
