"""What measures of activations say that they stand on, beside the assignments and decisions that are stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import moescope

BOTH: dict[str, Any] = {"activations": ["importance", "dimensionality"]}
Run = Callable[[Any], object]

# by router and expert: what ran, and of it at most two states of each sequence, which is what is drawn of them
_RAN = "assignments join experts using (router, expert) join tokens using (token) where not dropped and role = 'routed'"
RAN = f"select router, expert, count(*) from {_RAN} group by all order by all"
DRAWN = (
    f"select router, expert, sum(least(n, 2)) from (select router, expert, sequence, count(*) as n from {_RAN} group by all) "
    "group by all order by all"
)
SUMMED = "select router, expert, max(n) from measures where {} and n > 0 group by all order by all"


def counts(store: moescope.Store) -> dict[str, tuple[list[Any], list[Any]]]:
    """What each measure says that it stands on, beside what is stored."""
    residual = "select router, max(n) from measures where subset = 'residual' and estimator = 'naive' group by all order by all"
    of = {name: store.rows(SUMMED.format(f"name = '{name}'")) for name in ("ean", "weighted_ean", "reap", "max_down_proj")}
    found = {name: (rows, store.rows(RAN)) for name, rows in of.items()}
    for subset in ("expert input", "expert output"):
        rows = store.rows(SUMMED.format(f"subset = '{subset}' and estimator = 'naive'"))
        known = {row[:2] for row in rows}  # one state alone, or several that are equal, have no dimensionality, and no row
        found[subset] = rows, [row for row in store.rows(DRAWN) if row[:2] in known]
    if rows := store.rows(residual):
        found["residual"] = rows, store.rows("select router, count(*) from decisions group by all order by all")
    return found


def agree(path: Path, model: Any, run: Run, **settings: Any) -> moescope.Store:
    """Trace, and compare every count."""
    with torch.no_grad(), moescope.Tracer(model, path, **BOTH, **settings) as tracer:
        run(tracer)
    return compared(path)


def compared(path: Path) -> moescope.Store:
    store = moescope.open(path)
    for name, (summed, stored) in counts(store).items():
        assert stored
        assert summed == stored, name
    return store
