"""k that changes between forwards: what ran is kept, and nothing says another k."""

import json
from pathlib import Path
from typing import Any

import pytest
from small import ids, mixtral

import moescope
from moescope.store.integrity.verify import verify


def _traced(path: Path, ks: list[dict[int, int]]) -> moescope.Store:
    """A tiny Mixtral of two layers; before each forward {layer: k} is set."""
    model = mixtral()
    with moescope.Tracer(model, path):
        for changes in ks:
            for layer, k in changes.items():
                model.model.layers[layer].mlp.gate.top_k = k
            model(ids())
    return moescope.open(path)


RAN = "select forward, router, count(*), max(rank) + 1 from assignments group by all order by all"
NULL = "k changed while it was traced ({} experts per decision), so that routers.top_k is null"
GATE = "model.layers.{}.mlp.gate"
CASES: dict[str, tuple[list[dict[int, int]], list[int | None], list[str]]] = {
    "as proved": ([{}, {}], [2, 2], []),
    "both change": (
        [{}, {0: 1, 1: 1}, {0: 4, 1: 4}],
        [None, None],
        [f"{GATE.format(0)} and 1 more: {NULL.format('1, 2 and 4')}"],
    ),
    "one changes": ([{}, {1: 3}], [2, None], [f"{GATE.format(1)}: {NULL.format('2 and 3')}"]),
    "another from the first": (
        [{0: 3}, {}],
        [3, 2],
        [f"{GATE.format(0)}: ran 3 experts per decision, not the 2 that were proved"],
    ),
    "there and back": ([{0: 1}, {0: 2}, {0: 1}], [None, 2], [f"{GATE.format(0)}: {NULL.format('1 and 2')}"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_k_that_changes(tmp_path: Path, case: str) -> None:
    """Every decision has the experts that ran; top_k is theirs or null; a sentence says which; the store is sound."""
    changes, top_k, warnings = CASES[case]
    store = _traced(tmp_path / "a.duckdb", changes)
    k = {0: 2, 1: 2}
    expected: list[tuple[Any, ...]] = []
    for forward, change in enumerate(changes):
        k |= change
        expected += [(forward, layer, 14 * k[layer], k[layer]) for layer in (0, 1)]
    assert store.rows(RAN) == expected
    assert store.rows("select top_k from routers order by router") == [(value,) for value in top_k]
    assert json.loads(store.rows("select warnings from runs")[0][0]) == warnings
    assert [check for check in verify(store) if check.broken] == []


def test_other_runs_keep_their_k(tmp_path: Path) -> None:
    """A second run in the store says its own."""
    _traced(tmp_path / "a.duckdb", [{}, {0: 1}])
    store = _traced(tmp_path / "a.duckdb", [{}])
    assert store.rows("select run, top_k from routers order by router") == [(0, None), (0, 2), (1, 2), (1, 2)]
    assert [len(json.loads(w)) for (w,) in store.rows("select warnings from runs order by run")] == [1, 0]
