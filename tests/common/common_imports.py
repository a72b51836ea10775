"""What an imported store says, beside what is known of it."""

from pathlib import Path
from typing import Any

import numpy as np

import moescope
from moescope.store.integrity.verify import verify

ROWS = """
select t.sequence, t.position, r.layer, a.rank, a.slot, a.expert, a.weight from assignments a join routers r using (router)
join tokens t using (token) where a.run = ? order by t.sequence, t.position, r.layer, a.slot"""


def rows(store: Path, run: int = 0, whole: bool = True) -> list[tuple[Any, ...]]:
    """(sequence, position, layer, rank, slot, expert, weight) of every assignment, in the engine's order; `whole`: the store is
    verified first."""
    with moescope.open(store) as opened:
        assert [check.rule for check in verify(opened) if check.broken] == [] if whole else True
        first = opened.rows("select min(sequence) from sequences where run = ?", [run])[0][0]
        return [(row[0] - first, *row[1:]) for row in opened.rows(ROWS, [run])]


def expected(
    sequences: list[Any], layers: list[int], start: int = 0, ranked: bool = True, weights: bool = False
) -> list[tuple[Any, ...]]:
    """The same of what is known: sequences with `experts` (rows, routers, k), best first, and `weights`."""
    found = []
    for number, one in enumerate(sequences):
        for place in range(start, len(one.experts)):
            for router, layer in enumerate(layers):
                for rank, expert in enumerate(one.experts[place, router].tolist()):
                    weight = float(one.weights[place, router, rank]) if weights else None
                    found.append((number, place, layer, rank if ranked else None, rank, expert, weight))
    return found


def alike(found: list[tuple[Any, ...]], known: list[tuple[Any, ...]], off: float = 0.0) -> None:
    """Assert that rows are the same, weights up to `off`."""
    assert [row[:-1] for row in found] == [row[:-1] for row in known]
    mine, theirs = ([row[-1] for row in some] for some in (found, known))
    if theirs and theirs[0] is None:
        assert set(mine) == {None}
    else:
        assert np.abs(np.array(mine) - np.array(theirs)).max() <= off


def said(store: Path, run: int = 0) -> str:
    """The warnings of a run in one text."""
    with moescope.open(store) as opened:
        return str(opened.rows("select warnings from runs where run = ?", [run])[0][0])
