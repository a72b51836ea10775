"""One interval over documents: a figure has the same one wherever it is shown, and none below one number of documents."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from pages import part
from scipy import stats

from moescope import analyses
from moescope import statistics as st
from moescope.interventions.ablation.effects import effects
from moescope.interventions.ablation.plan import Job
from moescope.interventions.ablation.worth import agreement
from moescope.interventions.counterfactual import fragility

PAGES = ("queries.store_access", "queries.balance", "queries.expert.experts", "parts.pickers")
DOCUMENTS = [1, 4, 5, 12, 40]
TOP_K = 2  # of synthetic.make: pages count tokens with a label, analyses their assignments


def planted(path: Path, documents: int, **more: Any) -> Path:
    """Documents of one label each, named so that their order of routing is not that of their names."""
    synthetic.make(path, synthetic.tilt(0.4), documents=documents, **more)
    return path


def shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the pages Load and Experts show of the store, by router and expert."""
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    stored, balance, facts, pickers = (part(name) for name in PAGES)
    run = stored.rows("select * from runs")[0]
    layers = pickers.layers(run["run"])
    every = stored.frame("select router, expert, share from expert_load order by all")
    kinds = {r["kind"] for r in stored.rows("select distinct kind from sequence_labels")}
    return {
        "load": balance.shares(run, every),
        "balance": balance.figures(run),
        "labels": {
            (layer.router, expert, kind): facts.by_label(run, layer, expert, kind, False)[0]
            for layer in layers[:2] for expert in (0, 3) for kind in kinds
        },
        "tokens": {
            (layer.router, expert): facts.by_label(run, layer, expert, "upos", True)[0]
            for layer in layers[:2] for expert in (0, 3)
        },
    }  # fmt: skip


@pytest.mark.parametrize("documents", DOCUMENTS)
def test_pages_and_analyses_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: int) -> None:
    """Load's heat map, Load's curves, and the analysis `load`."""
    path = planted(tmp_path / "x.duckdb", documents)
    found, answer = shown(path, monkeypatch), analyses.run("load", path)
    both = found["load"].merge(answer.frames["experts"], on=["router", "expert"])
    assert len(both) == 24
    np.testing.assert_allclose(both[["low", "high"]], both[["ci_low", "ci_high"]], rtol=1e-6)
    for name, column in (("normalized load entropy", "load_entropy"), ("MaxVio", "max_violation")):
        both = found["balance"].merge(answer.figures(name, subset=""), on="router")
        ends = both[[f"{column}_low", f"{column}_high"]]
        np.testing.assert_allclose(ends, both[["ci_low", "ci_high"]], rtol=1e-6)
        assert ends.isna().all(axis=None) == (documents < st.MIN_UNITS)


@pytest.mark.parametrize("documents", DOCUMENTS)
def test_load_and_experts_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: int) -> None:
    """Where one label is that of every document, an expert takes k times as great a share of its tokens as of all load."""
    found = shown(planted(tmp_path / "x.duckdb", documents, domains=("only",)), monkeypatch)
    load = found["load"].set_index(["router", "expert"])
    for (router, expert, _), frame in found["labels"].items():
        row = frame.iloc[0]
        own = load.loc[(router, expert)]
        np.testing.assert_allclose([row["share"], row["low"], row["high"]], TOP_K * own[["share", "low", "high"]], rtol=1e-6)
        assert np.isnan(row["low"]) == (documents < st.MIN_UNITS)


@pytest.mark.parametrize("documents", [9, 15, 36])
def test_experts_and_the_analysis_of_labels_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: int) -> None:
    """By domain, of which each has a third of the documents."""
    path = planted(tmp_path / "x.duckdb", documents)
    found, answer = shown(path, monkeypatch), analyses.run("specialization", path)
    cells = pd.concat([f for f in answer.frames.values() if "name" in f and "ci_low" in f], ignore_index=True)
    cells = cells[cells["name"] == "share of load by label"]
    seen = 0
    for (router, expert, kind), frame in found["labels"].items():
        for row in frame.itertuples():
            cell = cells[(cells["router"] == router) & (cells["expert"] == expert) & (cells["subset"] == f"{kind}={row.label}")]
            for own in cell.itertuples():
                seen += 1
                np.testing.assert_allclose([row.low, row.high], [TOP_K * own.ci_low, TOP_K * own.ci_high], rtol=1e-5)
            assert np.isnan(row.low) == (documents // 3 < st.MIN_UNITS)
    assert seen


@pytest.mark.parametrize("documents", [3, 4, 5, 6])
def test_nothing_has_an_interval_below_the_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: int) -> None:
    """Of labels of tokens, of two runs, of ablations, of margins, of ranks: from five documents (or experts) on."""
    enough = documents >= st.MIN_UNITS == 5
    path = planted(tmp_path / "x.duckdb", documents)
    synthetic.make(path, synthetic.tilt(0.4), documents=documents, seed=1, noise=0.5)
    for frame in shown(path, monkeypatch)["tokens"].values():
        assert (frame["low"].notna() == (frame["documents"] >= 5)).all()
        assert set(frame["documents"]) <= set(range(1, documents + 1))
    compared = part("queries.comparison").agreement(0, 1)[0]
    assert len(compared)
    assert (compared["low"].notna() == enough).all()
    ranks = part("queries.effects").rank_correlation(
        pd.Series(np.arange(documents)), pd.Series([0.0, 2, 1, 3, 5, 4][:documents])
    )
    assert np.isfinite(ranks[1]) == enough
    sums = ablated(documents)
    found = effects(sums, ["set"], [Job("set", None, ())], {"all": ["all"]})
    assert (found["ci_low"].notna() == enough).all()
    margins = pd.DataFrame({"margin": 0.1, "regret": np.arange(float(documents)), "better": 0.5, "flip": 0.0})
    assert (fragility(margins, 1)["ci_low"].notna() == enough).all()


def ablated(documents: int) -> pd.DataFrame:
    """Sums by document of one ablation."""
    rng = np.random.default_rng(0)
    names = importlib.import_module("moescope.interventions.ablation.scores").NAMES
    both = {name: rng.normal(1, 1, 2 * documents) for name in names}
    where = {"kind": "all", "document": np.tile(np.arange(documents), 2), "set": np.repeat([-1, 0], documents), "group": 0}
    return pd.DataFrame(where | {"n": 10} | both)


def test_ranks_of_effects_without_an_interval_have_none() -> None:
    """An effect whose width is not known is not one that is known exactly."""
    frame = pd.DataFrame({"router": 0, "effect": [0.1, 0.2, 0.4, 0.3], "frequency": [1.0, 2, 3, 4]})
    bare = agreement(frame.assign(ci_low=np.nan, ci_high=np.nan), ["frequency"]).iloc[0]
    known = agreement(frame.assign(ci_low=frame["effect"] - 0.1, ci_high=frame["effect"] + 0.1), ["frequency"]).iloc[0]
    assert np.isnan([bare["ci_low"], bare["ci_high"]]).all()
    assert known["ci_low"] < known["correlation"] <= 1 <= known["ci_high"] + 1e-9
    assert bare["correlation"] == known["correlation"]


@pytest.mark.parametrize("documents", [5, 12, 100])
def test_the_recipe_by_hand(documents: int) -> None:
    """Quantiles of means of documents drawn anew, about their mean, widened by sqrt(n/(n-1)) and t over normal quantiles."""
    counts = np.random.default_rng(1).poisson(20, (documents + 3, 2)).astype(float)
    counts[[0, 4, documents]] = 0  # documents without any are none
    value, low, high = st.over_documents(lambda x: x[..., 0] / x[..., 1], counts)
    some = counts[counts.any(1)]
    assert len(some) == documents
    drawn = np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), size=st.DRAWS) @ some
    ratio = drawn[:, 0] / drawn[:, 1]
    wide = np.sqrt(documents / (documents - 1)) * stats.t.ppf(0.975, documents - 1) / stats.norm.ppf(0.975)
    ends = some[:, 0].sum() / some[:, 1].sum() + wide * (np.quantile(ratio, [0.025, 0.975]) - ratio.mean())
    assert [float(value), float(low), float(high)] == pytest.approx([some[:, 0].sum() / some[:, 1].sum(), *ends], rel=1e-6)


def test_draws_without_a_figure_are_left_out() -> None:
    """A label that stands in six of sixty documents is missing from some draws: neither 0 there, nor unknown everywhere."""
    counts = np.zeros((60, 2, 2))
    counts[:, 0] = [5, 10]
    counts[:6, 1] = [[n, 10] for n in range(4, 10)]
    value, low, high = st.over_documents(lambda x: x[..., 0] / x[..., 1], counts, units=np.array([60, 6]))
    assert value.tolist() == pytest.approx([0.5, 0.65])
    assert low[0] == high[0] == pytest.approx(0.5)
    assert 0.35 < low[1] < 0.6 < 0.7 < high[1] < 0.95
