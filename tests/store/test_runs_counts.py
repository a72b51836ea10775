"""What `runs` says of how much was recorded, run by run: of several runs in one store, and of a model without routers."""

from pathlib import Path

import synthetic_app
from recounted import Truth, written

import moescope

COUNTS = "select run, forwards, sequences, tokens, decisions, assignments from runs order by run"


def test_every_run_counts_its_own(tmp_path: Path) -> None:
    """Joining another run leaves the earlier ones as they were; dropped assignments count."""
    truth, expected = Truth(3), []
    for run in range(3):
        tokens, decisions = [t for t in truth.tokens if t.run == run], truth.of(run)
        distinct = [len({getattr(t, name) for t in tokens}) for name in ("forward", "sequence", "token")]
        expected.append((run, *distinct, len(decisions), sum(len(d.chosen) for d in decisions)))
    with moescope.open(written(tmp_path / "a.duckdb", truth)) as store:
        assert store.rows(COUNTS) == expected


def test_no_router_no_decision(tmp_path: Path) -> None:
    with moescope.open(synthetic_app.recursive(tmp_path / "a.duckdb")) as store:
        assert [row[4:] for row in store.rows(COUNTS)] == [(0, 0), (0, 0)]
