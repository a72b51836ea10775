"""Guesses: what a token's id, or the layer before, decides is known; what chance decides is not; batches counted by hand."""

import numpy as np
import pytest
import synthetic

import moescope
from moescope import analyses
from moescope.analyses import predictability
from moescope.analyses._shared.arrays.decision_sample import sample
from moescope.analyses._shared.scope import scope
from moescope.errors import AnalysisError


def follows(expert: int = 2, strength: float = 6.0) -> synthetic.Plant:
    """Two layers have an expert each that takes the same tokens, drawn at random."""

    def plant(read: synthetic.Inputs, layer: int, logits: np.ndarray) -> None:
        if layer > 0:
            chosen = np.random.default_rng(5).random(len(logits)) < 0.5
            logits[chosen, expert + layer] = strength

    return plant


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictability")
    plants = {"verbs": [synthetic.verbs(3)], "follows": [follows()], "chance": [], "tilt": [synthetic.tilt(2.0)]}
    for name, planted in plants.items():
        synthetic.make(folder / f"{name}.duckdb", *planted, documents=24 if name == "follows" else 10, tokens=30)
    return folder


def known(path) -> dict[str, set[int]]:
    """Layers in which each guess knows more than load."""
    rows = analyses.run("predictability", path).figures(predictability.BITS)
    return {str(e): set(g.loc[g["q"] <= 0.05, "layer"]) for e, g in rows.groupby("estimator")}


def test_what_a_token_decides_is_known_from_it(stores):
    found = known(stores / "verbs.duckdb")
    assert found["token id"] == {0, 2, 3}
    assert not found["position"]
    rows = analyses.run("predictability", stores / "verbs.duckdb").figures(predictability.BITS, estimator="token id")
    assert ((rows["ci_low"] <= rows["value"]) & (rows["value"] <= rows["ci_high"])).all()


def test_what_the_layer_before_decides_is_known_from_it_beyond_the_token(stores):
    answer = analyses.run("predictability", stores / "follows.duckdb")
    rows = answer.figures(predictability.BITS, estimator="layer before")
    assert set(rows.loc[rows["q"] <= 0.05, "layer"]) == {3}  # layer 2 is the first of the two that agree
    beyond = answer.figures(predictability.BEYOND, estimator="token id and layer before")
    assert set(beyond.loc[beyond["q"] <= 0.05, "layer"]) == {3}
    assert not (answer.figures(predictability.BITS, estimator="token id")["q"] <= 0.05).any()


@pytest.mark.parametrize("which", ["chance", "tilt"])
def test_what_chance_decides_is_not_known(stores, which):
    answer = analyses.run("predictability", stores / f"{which}.duckdb")
    for name in (predictability.BITS, predictability.BEYOND, "Jaccard with the layer before"):
        assert not (answer.figures(name)["q"] <= 0.05).any()
    shares = answer.figures(predictability.GUESSED)
    assert shares["p"].isna().all()  # documents teach each other: flipped signs are not their null (10 % below .05)
    assert shares.loc[shares["estimator"] != "load", "null_mean"].notna().all()
    assert answer.reading.startswith("Nothing asked here tells a router's experts better than their load does")


def test_jaccard_and_batches_are_what_a_loop_counts(stores):
    with moescope.open(stores / "tilt.duckdb") as store:
        answer = analyses.run("predictability", store)
        taken = sample(scope(store), [], predictability.MOST)
    sets = {r: [set(row[row >= 0].tolist()) for row in chosen] for r, chosen in taken.chosen.items()}
    for router, row in answer.figures("Jaccard with the layer before").set_index("router").iterrows():
        pairs = zip(sets[router - 1], sets[router])
        assert row["value"] == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in pairs]), abs=1e-12)
        assert row["chance"] == pytest.approx((2 * 2 * 6 / 56) * (1 / 3) + (2 / 56), abs=1e-12)  # one shared, both shared
    batches = answer.figures("share of experts active in a batch", subset="batch of 8")
    for router in taken.chosen:
        share = np.bincount(taken.chosen[router].ravel(), minlength=8) / len(taken.tokens)
        mine = batches[batches["router"] == router].set_index("estimator")["value"]
        assert mine["tokens at random"] == pytest.approx(np.mean(1 - (1 - share) ** 8), abs=1e-6)
        windows = [sets[router][at + p : at + p + 8] for at in range(0, len(taken.tokens), 30) for p in (0, 8, 16)]
        assert mine["neighbours"] == pytest.approx(np.mean([len(set().union(*w)) / 8 for w in windows]), abs=1e-12)


def test_images_have_no_token_ids_and_one_document_no_guess(tmp_path):
    synthetic.make(tmp_path / "images.duckdb", side=4, documents=12, label="class")
    answer = analyses.run("predictability", tmp_path / "images.duckdb")
    assert set(answer.figures(predictability.BITS)["estimator"]) == {"position", "layer before"}
    synthetic.make(tmp_path / "one.duckdb", documents=1)
    with pytest.raises(AnalysisError, match="one document"):
        analyses.run("predictability", tmp_path / "one.duckdb")
