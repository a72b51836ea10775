"""Trees of routers, routers of depth and conditions: their views against answers worked out by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest

import moescope
from moescope.store import RunWriter

ROUTERS: list[dict[str, Any]] = [
    {"router": 0, "name": "root", "layer": 0, "kind": "tree", "experts": 2, "decides_on": "token"},
    {"router": 1, "name": "left", "layer": 0, "kind": "tree", "experts": 2, "parent_router": "root", "parent_expert": 0},
    {"router": 2, "name": "skip", "layer": 1, "kind": "depth", "experts": 1, "weight_on": "residual", "pool_axes": "L"},
]


def _routes(router: int, experts: list[list[int]], weights: list[list[float]]) -> dict[str, Any]:
    """Two tokens in two forwards."""
    columns = {"forward": [0, 0, 1, 1], "router": router, "token": [0, 1, 0, 1]}
    for rank in range(len(experts[0])):
        columns |= {
            f"e{rank}": np.array([row[rank] for row in experts], np.uint16),
            f"w{rank}": np.array([row[rank] for row in weights], np.float32),
        }
    return columns


@pytest.fixture(scope="module", params=["unfinished", "finished"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[moescope.Store]:
    """Two tokens of two sequences, denoised in two steps."""
    path = Path(tmp_path_factory.mktemp("trees")) / "run.duckdb"
    run = {"name": "tree", "seed": 0, "device": "cpu", "started": "2026-01-01 00:00:00"}
    experts = [
        {"router": r["router"], "expert": e, "role": "routed", "expert_name": f"{r['name']} {e}"}
        for r in ROUTERS
        for e in range(r["experts"])
    ]
    model = {"name": "tree", "weights_sha256": "0", "config": {}}
    routers = [{"stack": "decoder", "contract": "dense", **r} for r in ROUTERS]
    writer = RunWriter.create(path, {"run": run, "model": model, "routers": routers, "experts": experts})
    writer.add("sequences", {"sequence": [0, 1], "document": ["a", "b"], "stack": "decoder"})
    writer.add("tokens", {"token": [0, 1], "sequence": [0, 1], "position": 0, "unit": "patch"})
    writer.add("forwards", {"forward": [0, 1], "phase": "forward", "step": [0, 1]})
    writer.add("conditions", {"forward": [0, 1], "kind": "timestep", "value": [900.0, 100.0]})
    writer.add("conditions", {"forward": [0, 0, 1, 1], "sequence": [0, 1, 0, 1], "kind": "class", "label": ["cat", "dog"] * 2})
    writer.add("routes_2", _routes(0, [[0, 1], [1, 0], [0, 1], [0, 1]], [[0.75, 0.25], [0.5, 0.5], [1.0, 0.0], [0.625, 0.375]]))
    writer.add("routes_2", _routes(1, [[1, 0], [0, 1], [0, 1], [1, 0]], [[0.5, 0.5], [0.75, 0.25], [0.5, 0.5], [1.0, 0.0]]))
    import pyarrow as pa

    some = {"forward": [0, 0, 1, 1], "router": 2, "token": [0, 1, 0, 1]}
    writer.add(
        "routes_1",
        {**some, "e0": pa.array([0, None, 0, None], pa.uint16()), "w0": pa.array([0.5, None, 0.25, None], pa.float32())},
    )
    for name in ("sequence", "token", "forward"):
        writer.take(name, 2)
    if request.param == "finished":
        writer.close(handmade.FINAL, {})
    else:
        writer.commit({})
    with moescope.open(path) as opened:
        yield opened


ANSWERS = {
    # the right side of the root is a leaf of its own; the left side has two leaves
    "select forward, token, path, weight from leaf_weight order by all": [
        (0, 0, [0, 0], 0.375), (0, 0, [0, 1], 0.375), (0, 0, [1], 0.25),
        (0, 1, [0, 0], 0.375), (0, 1, [0, 1], 0.125), (0, 1, [1], 0.5),
        (1, 0, [0, 0], 0.5), (1, 0, [0, 1], 0.5), (1, 0, [1], 0.0),
        (1, 1, [0, 0], 0.0), (1, 1, [0, 1], 0.625), (1, 1, [1], 0.375),
    ],
    "select forward, token, depth, considered from token_depth order by all": [
        (0, 0, 1, 1), (0, 1, 0, 1), (1, 0, 1, 1), (1, 1, 0, 1),
    ],
    "select kind, value, label, expert, assignments, share, overall from condition_load where router = 2 order by all": [
        ("class", None, "cat", 0, 2, 1.0, 1.0), ("timestep", 100.0, None, 0, 1, 1.0, 1.0),
        ("timestep", 900.0, None, 0, 1, 1.0, 1.0),
    ],
    "select distinct kind, value, label, share, overall from condition_load where router = 0 order by all": [
        ("class", None, "cat", 0.5, 0.5), ("class", None, "dog", 0.5, 0.5),
        ("timestep", 100.0, None, 0.5, 0.5), ("timestep", 900.0, None, 0.5, 0.5),
    ],
    "select name, kind, decides_on, pool_axes, parent_router, parent_expert, weight_on from routers order by router": [
        ("root", "tree", "token", None, None, None, None), ("left", "tree", None, None, "root", 0, None),
        ("skip", "depth", None, "L", None, None, "residual"),
    ],
    "select expert_name from experts order by router, expert": [
        ("root 0",), ("root 1",), ("left 0",), ("left 1",), ("skip 0",),
    ],
}  # fmt: skip


@pytest.mark.parametrize("query", ANSWERS, ids=lambda q: q.partition("from ")[2].split()[0])
def test_answers(store: moescope.Store, query: str) -> None:
    assert store.rows(query) == ANSWERS[query]
