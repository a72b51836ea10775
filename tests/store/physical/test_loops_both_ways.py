"""Loops over columns, as the interpreter runs them for few rows and as machine code: the same results, bit for bit."""

from typing import Any

import numpy as np
import pytest

from moescope.store.physical import compiled, encoding_loops
from moescope.store.sums import counting_loops

Array = np.ndarray[Any, Any]
ROWS, ROUTERS, WIDE, K = 60, 3, 5, 3


def stretches(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Where stretches of rows begin and end, and which counters they add to."""
    starts = np.unique(np.append(0, rng.integers(0, ROWS, 6))).astype(np.intp)
    return starts, np.append(starts[1:], ROWS), rng.integers(0, ROUTERS, len(starts))


def routed(seed: int) -> dict[str, list[Any]]:
    """Arguments of every loop over routed rows."""
    rng = np.random.default_rng(seed)
    part, experts = stretches(rng), rng.integers(0, WIDE, (K, ROWS)).astype(np.uint16)
    values = rng.choice(np.array([0.25, 1e30, np.nan, np.inf, -np.inf, 1 / 3], np.float32), ROWS)
    token, rising = np.tile(np.arange(ROWS // 2, dtype=np.uint32), 2), np.arange(seed, seed + ROWS, dtype=np.uint32)
    some = ROWS * (seed % 2)
    token[-1] += seed % 2  # of odd seeds the second router saw another token
    sorted_stretches = [np.array(a, np.intp) for a in ([0, 2], [0, 20, 30], [20, 30, ROWS])]
    return {
        "rises": [np.where(rng.random(ROWS) < 0.02 * (seed % 2), 7, rising).astype(np.uint32)],
        "places": [rng.integers(-(seed % 2), WIDE + seed % 3, ROWS), WIDE, np.zeros(ROWS, np.uint16)],
        "stretches": [rng.integers(0, 2, ROWS), rng.integers(0, 2, some), np.zeros(ROWS, np.intp)],
        "chosen": [*part, experts[0], values[:some], np.zeros((ROUTERS, WIDE), np.int64), np.zeros((ROUTERS, WIDE))],
        "together": [*part, experts, np.zeros((ROUTERS, WIDE * WIDE), np.int64)],
        "moments": [*part, values, rng.random(some) < 0.2, np.zeros((ROUTERS, 3)), np.zeros(ROWS, bool)],
        "follow": [
            np.array([[0, 1]]), np.array([0, 2, 3]), sorted_stretches[1], sorted_stretches[2], token,
            np.zeros(ROWS, np.uint32), token[: ROWS * (seed % 3)].copy(), experts[0], np.zeros((1, WIDE, WIDE), np.int64),
        ],
        "words": [
            *part[:2], part[2] - 1, rng.integers(0, 9, ROWS), experts,
            np.zeros((ROUTERS, 9, WIDE), np.int64), np.zeros((ROUTERS, 9, WIDE), np.int64), seed % 2,
        ],
    }  # fmt: skip


def encoded(seed: int) -> dict[str, list[Any]]:
    """Arguments of every loop that encodes: of odd seeds some value cannot be."""
    rng = np.random.default_rng(seed)
    halves = (rng.random(ROWS).astype(np.float32).view(np.uint32) >> 16).astype(np.uint32) << 16
    second = (rng.random(ROWS) / 2).astype(np.float32)
    first = (1 - second).astype(np.float32)
    bits = [(a.view(np.uint32) >> 16).astype(np.uint16) for a in (first, np.maximum(second, np.float32(1e-6)))]
    whole = (rng.integers(0, 900, ROWS) / np.float32(64)).astype(np.float32)
    if seed % 2:
        halves[3], first[5], bits[0][7], whole[9] = halves[3] + 1, 0.4, 0x3E00, [np.nan, np.inf, 1e9, 0.3][seed // 2 % 4]
    return {
        "halve": [halves, np.zeros(ROWS, np.uint16)],
        "rest": [first, second, 2.0**30, 1 << 20, np.zeros(ROWS, np.int32)],
        "near": [*bits, 3, np.zeros(ROWS, np.int8)],
        "steps": [whole, 64.0, np.zeros(ROWS, np.int32)],
        "within": [bits[1], 71 << 7, (135 << 7) - 9000 * (seed % 2)],
    }


@pytest.mark.parametrize("seed", range(8))
def test_every_loop(seed: int) -> None:
    for module, cases in ((counting_loops, routed(seed)), (encoding_loops, encoded(seed))):
        loops = {name for name, call in vars(module).items() if hasattr(call, "machine")}
        assert loops - {"within"} <= cases.keys() <= loops
        for name, given in cases.items():
            call, ways = getattr(module, name), []
            for way in (call.plain, call.machine()):
                own = [a.copy() if isinstance(a, np.ndarray) else a for a in given]
                ways.append((way(*own), own))
            (said, plain), (expected, machine) = ways
            assert said == expected, name
            if said is None or said:  # else what was written is thrown away
                for one, other in zip(plain, machine):
                    assert np.array_equal(one, other, equal_nan=name in ("chosen", "moments")), name


def test_few_rows_run_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are counted over all calls; what is beyond the limit is machine code."""
    monkeypatch.setattr(compiled, "PLAIN", 100)
    monkeypatch.setattr(compiled, "_gone", 0)
    few = [compiled._few((np.zeros(rows), 3, np.zeros((9, 9)))) for rows in (60, 41, 40, 1)]
    assert few == [True, False, True, False]
    assert not compiled._few((np.zeros((20, 9)), 3))  # a table that a loop goes through
