"""Likeness of experts by their weights: cosines and Mantel's test by hand; what a trace writes is what the weights say."""

import numpy as np
import pytest
import torch
from small import ids, mixtral

import moescope
from moescope import analyses
from moescope.analyses.structure import weight_similarity
from moescope.contracts import find
from moescope.models import tiny
from moescope.tracer.activations import weight_cosines

EXACT = {"abs": 1e-9}


def test_cosines_by_hand():
    table = weight_cosines.cosines(np.array([[3.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
    assert table == pytest.approx(np.array([[1, 0.6, 0], [0.6, 1, 0], [0, 0, 0]]), **EXACT)


def test_ochiai_by_hand():
    pairs, load = np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([4.0, 9.0])
    assert weight_similarity.ochiai(pairs, load)[0, 1] == pytest.approx(2 / 6, **EXACT)
    assert not weight_similarity.ochiai(pairs, np.array([0.0, 9.0])).any()


def test_mantel_finds_the_same_order_and_not_another():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(8, 8))
    table = table + table.T
    value, null = weight_similarity.mantel(table, np.exp(table), 99)
    assert value == pytest.approx(1, **EXACT)
    assert np.abs(null).max() < 0.9
    assert abs(null.mean()) < 0.1


def _sites(model):
    sites = find(model)
    for number, site in enumerate(sites):
        site.key = number
    return sites


def test_rows_of_routers_and_experts():
    model = mixtral()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight[1] = 2 * layer.mlp.gate.weight[0]
            for parameter in layer.mlp.experts.parameters():
                parameter[3] = -parameter[2]
    rows = weight_cosines.likeness(_sites(model))
    found = {(r["router"], r["name"], r["expert"], r["extra"]["other"]): r["value"] for r in rows if r["estimator"] == "pair"}
    assert len(found) == 2 * 2 * 28
    for router in (0, 1):
        assert found[router, "router_weight_cosine", 0, 1] == pytest.approx(1, abs=1e-6)
        assert found[router, "expert_weight_cosine", 2, 3] == pytest.approx(-1, abs=1e-6)
    means = [r for r in rows if r["estimator"] == "mean over pairs"]
    for row in means:
        same = [v for key, v in found.items() if key[:2] == (row["router"], row["name"])]
        assert row["value"] == pytest.approx(np.mean(same), **EXACT)


@pytest.mark.parametrize(
    ("family", "router", "experts"), [("ernie4_5_moe", True, True), ("jamba", True, True), ("zaya", False, True)]
)
def test_where_weights_lie(family, router, experts):
    """A row of biases is no matrix; a router of several layers has no rows of its own."""
    site = _sites(tiny.build(family).model)[0]
    rows = weight_cosines.router_rows(site), weight_cosines.expert_rows(site)
    assert [found is not None for found in rows] == [router, experts]
    assert {len(found) for found in rows if found is not None} == {site.n_experts}


def test_many_experts_keep_the_nearest_pairs(monkeypatch):
    monkeypatch.setattr(weight_cosines, "ALL", 4)
    monkeypatch.setattr(weight_cosines, "NEAREST", 1)
    site = _sites(mixtral())[0]
    rows = [r for r in weight_cosines.likeness([site]) if r["name"] == "router_weight_cosine" and r["estimator"] == "pair"]
    table = weight_cosines.cosines(weight_cosines.router_rows(site)) - 2 * np.eye(8)
    wanted = {tuple(sorted((e, int(row.argmax())))) for e, row in enumerate(table)}
    assert {(r["expert"], r["extra"]["other"]) for r in rows} == wanted


def test_from_a_trace_to_structure(tmp_path):
    with moescope.Tracer(mixtral(), tmp_path / "s.duckdb") as tracer:
        for seed in range(6):
            tracer.model(input_ids=ids(rows=4, places=12, seed=seed))
    answer = analyses.run("structure", tmp_path / "s.duckdb")
    pairs = answer.frames["similarity"]
    assert list(pairs.columns) == [
        "stack",
        "layer",
        "router",
        "expert",
        "other",
        "expert weight cosine",
        "router weight cosine",
    ]
    assert len(pairs) == 2 * 28
    for router, part in pairs.groupby("router"):
        mean = answer.figures("router weight cosine", estimator="mean over pairs", router=router)["value"].iloc[0]
        assert mean == pytest.approx(part["router weight cosine"].mean(), **EXACT)
    both = answer.figures("router weight cosine ~ co-activation")
    assert both["value"].between(-1, 1).all()
    assert both["p"].between(0, 1).all()
    assert len(both) == 2
