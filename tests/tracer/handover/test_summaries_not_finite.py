"""Decisions whose logits were NaN or infinite are counted, and left out of means: by shards, by SQL, on the Runs page."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import part, rows, same, view
from recounted import Truth, written

import moescope
from moescope.store.sums.definitions import add_rollups
from moescope.store.write.change import change_store

SUMMARY = """select router, decisions, unrouted, routing_entropy, entropy_sd, s.margin, z_loss, nonfinite
from router_summary s join decision_rollup using (router, decisions, unrouted, nonfinite) order by 1"""


def broken() -> Truth:
    """Every seventh entropy NaN, every eleventh log-sum-exp infinite, every fifth margin NaN."""
    truth = Truth(1)
    truth.decisions = [
        replace(
            d,
            entropy=math.nan if n % 7 == 0 else d.entropy,
            log_sum_exp=math.inf if n % 11 == 0 else d.log_sum_exp,
            margin=math.nan if n % 5 == 0 else d.margin,
        )
        for n, d in enumerate(truth.decisions)
    ]
    return truth


@pytest.mark.parametrize("counted", ["by shards", "by SQL"])
def test_means_and_counts(counted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, path = broken(), tmp_path / "a.duckdb"
    written(path, truth)
    if counted == "by SQL":
        change_store(path, lambda con: add_rollups(con, 0))
    expected, every = [], 0
    for router in range(4):
        here = truth.of(0, router)
        finite = {
            name: [v for d in here if math.isfinite(v := getattr(d, name))] for name in ("entropy", "log_sum_exp", "margin")
        }
        bad = sum(not (math.isfinite(d.entropy) and math.isfinite(d.log_sum_exp)) for d in here)
        every += bad
        expected.append((
            router, len(here), sum(not d.ran for d in here), float(np.mean(finite["entropy"])),
            float(np.std(finite["entropy"])),
            float(np.mean(finite["margin"])), float(np.mean(np.square(finite["log_sum_exp"]))), bad,
        ))  # fmt: skip
    with moescope.open(path) as store:
        same(store.rows(SUMMARY), expected)
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    assert rows(part("queries.store_access").frame(view("runs").HEALTH, 0), "nonfinite") == [(every,)]
    (card,) = (c for c in view("runs").health(part("parts.pickers").runs()[0]) if c[0] == "Not finite")
    assert card == ("Not finite", str(every), "decisions whose logits are no finite numbers", "bad")
