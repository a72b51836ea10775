"""Balancing losses, and what other capacities would drop: against second implementations, with their intervals."""

import numpy as np
import pytest
import synthetic

import moescope
from moescope import analyses
from moescope.analyses._shared import answer, scope
from moescope.analyses.load import capacity, capacity_resampled


def test_balancing_losses_need_logits(tmp_path):
    for name, logits in (("with", True), ("without", False)):
        synthetic.make(tmp_path / f"{name}.duckdb", synthetic.verbs(3), synthetic.dead(7), logits=logits)
    with moescope.open(tmp_path / "with.duckdb") as store:
        figures = analyses.run("load", store).figures("balancing loss")
        logits = np.array([r for (r,) in store.rows("select logits from logits where router = 0 order by token")])
    rows = figures[figures["router"] == 0].set_index("estimator")["value"]
    assert (figures["units"] == 24).all()
    assert (figures["ci_low"] < figures["value"]).all()
    assert (figures["value"] < figures["ci_high"]).all()
    assert (figures["ci_high"] / figures["ci_low"] < 1.2).all()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    chosen = np.argsort(-logits, axis=1)[:, :2]
    f1, fk = np.bincount(chosen[:, 0], minlength=8) / len(p), np.bincount(chosen.ravel(), minlength=8) / len(p)
    assert rows["Switch"] == pytest.approx(8 * (f1 * p.mean(0)).sum(), rel=1e-5)
    assert rows["GShard"] == pytest.approx(rows["Switch"] / 64, rel=1e-9)
    assert rows["Transformers, by layer"] == pytest.approx(8 * (fk * p.mean(0)).sum(), rel=1e-5)
    without = analyses.run("load", tmp_path / "without.duckdb")
    assert without.figures("balancing loss").empty
    assert any("trace with router logits" in note for note in without.notes)


def test_capacity_agrees_with_what_was_executed(tmp_path):
    """96 tokens, 2 of 4 experts: 48 places each is ratio 1; the store's own drops came from the same rule."""
    path = tmp_path / "run.duckdb"
    synthetic.make(path, synthetic.tilt(3.0), documents=6, tokens=8, experts=4, capacity=48, layers=(0,))
    with moescope.open(path) as store:
        here = scope.scope(store)
        frame, _ = capacity.what_if(here, [], ratios=(1.0, 4.0))
        executed = store.rows("select dropped_share from load_balance")[0][0]
    one = frame[frame["ratio"] == 1].set_index("order")["dropped_share"]
    assert executed > 0
    assert one["vanilla"] == pytest.approx(executed, rel=1e-9)
    assert one["batch prioritized"] == pytest.approx(executed, rel=1e-9)
    assert (frame[frame["ratio"] == 4]["dropped_share"] == 0).all()


def test_capacity_figures_say_what_the_frame_says(tmp_path, monkeypatch):
    """Documents each drawn once: the loads dealt again drop what was dropped; weights in token order are near theirs."""
    path = tmp_path / "run.duckdb"
    synthetic.make(path, synthetic.tilt(3.0), documents=30, tokens=16, experts=4, capacity=48, layers=(0,))
    drawn = []

    def once(*asked):
        drawn.append(capacity_resampled.redealt(*asked))

    with moescope.open(path) as store:
        here = scope.scope(store)
        rows, frame, _ = capacity.what_if_figures(here, [])
        monkeypatch.setattr(capacity, "redealt", once)
        monkeypatch.setattr(capacity_resampled.st, "bootstrap_weights", lambda units: np.ones((1, units)))
        capacity.what_if_figures(here, [])
    figures = answer.gather(rows)
    vanilla, best = (frame[frame["order"] == order] for order in ("vanilla", "batch prioritized"))
    share = figures[figures["name"] == "dropped share at another capacity"]
    assert share["value"].to_numpy() == pytest.approx(vanilla["dropped_share"].to_numpy(), rel=1e-9)
    assert drawn[0][0, :, 0] == pytest.approx(vanilla["dropped_share"].to_numpy(), rel=1e-6)
    assert drawn[0][0, :, 1] == pytest.approx(vanilla["dropped_weight"].to_numpy(), abs=0.02)
    assert share["chance"].to_numpy() == pytest.approx([0.75, 0.5, 0.25, 0, 0, 0, 0], abs=0.01)
    assert (share["ci_low"] <= share["value"]).all()
    saved = figures[figures["name"] == "weight saved by batch priority"]["value"].to_numpy()
    assert saved == pytest.approx(vanilla["dropped_weight"].to_numpy() - best["dropped_weight"].to_numpy(), rel=1e-9)
    assert saved[0] > 0.01
