"""Signatures: clusters agree with what routing follows, and with nothing else; agreement as scikit-learn has it."""

from pathlib import Path

import labelled
import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from moescope import analyses
from moescope.analyses.signatures.maps import Agreement, cut, map_rows, neighbours, shared, tree
from moescope.errors import AnalysisError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: 0 follows each word, 1 follows the sense (words lean to one of five)."""
    where = tmp_path_factory.mktemp("signatures") / "x.duckdb"
    labelled.make(where, tokens=200, vocabulary=150, token=2.0)
    labelled.make(where, tokens=200, vocabulary=150, token=0.0, sense=2.5)
    return where


def test_agreement_as_in_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    found, labels = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    agree = Agreement(labels, found)
    for mixed in (labels, rng.permutation(labels)):
        expected = adjusted_mutual_info_score(mixed, found), adjusted_rand_score(mixed, found)
        np.testing.assert_allclose(agree(mixed), expected, atol=1e-9)
    assert Agreement(found, found)(found) == pytest.approx((1, 1))


def test_tree_and_neighbours() -> None:
    points = np.array([[0.0, 0], [0, 1], [0, 2], [9, 0], [9, 1], [9, 2]])
    assert len(set(cut(tree(points), 2)[:3])) == 1
    assert cut(tree(points), 2)[0] != cut(tree(points), 2)[5]
    near = neighbours(points, 2)
    assert set(near[0]) == {1, 2}
    assert shared(near, near) == 1
    assert shared(near, near[::-1]) == 0


def test_planted_and_not(path: Path) -> None:
    word, sense = (analyses.run("signatures", path, run, seeds=0) for run in (0, 1))
    name = "adjusted mutual information"
    assert (word.figures(name)["q"] > 0.05).all()
    found = sense.figures(name, subset="token types by supersense").iloc[0]
    assert found["q"] <= 0.05
    assert found["ci_low"] > 0.1
    assert sense.figures(name, subset="token types by domain").iloc[0]["q"] > 0.05
    assert {"vocab_id", "text", "upos", "supersense", "domain"} <= set(sense.frames["token types"])
    assert len(sense.frames["experts"]) == 16


def test_words_of_one_domain_are_no_finding(tmp_path: Path) -> None:
    """They stand in the same documents, which lean to experts by themselves: dealing labels to documents does not hold that."""
    labelled.make(tmp_path / "a.duckdb", tokens=200, vocabulary=150, token=0.0, sense=0.0)
    answer = analyses.run("signatures", tmp_path / "a.duckdb", seeds=0)
    rows = answer.figures(subset="token types by domain")
    assert len(rows) == 2
    assert rows["null"].str.contains("; for contrast: words of one label share documents").all()
    assert not answer.verdict.rows["subset"].str.contains("domain").any()


def test_labels_of_documents_alone_are_not_compared(tmp_path: Path) -> None:
    labelled.make(tmp_path / "a.duckdb", tokens=200, vocabulary=150, token=0.0, sense=0.0)
    said = analyses.run("signatures", tmp_path / "a.duckdb", kinds="domain", seeds=0).verdict.sentence
    assert "no partition by labels of tokens could be compared" in said


@pytest.mark.slow
def test_maps() -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(3), 20, axis=0) + 0.05 * rng.normal(size=(60, 3))
    table, rows = map_rows(x, pd.DataFrame({"text": np.repeat(["a", "b", "c"], 20)}), "points", 2)
    assert table.shape == (120, 4)
    value = rows.set_index("name")["value"]
    assert value["map faithfulness"] > 2 * rows["chance"].iloc[0]
    assert value["map stability"] > 2 * rows["chance"].iloc[0]


def test_too_few_types(path: Path) -> None:
    with pytest.raises(AnalysisError, match="20 are needed"):
        analyses.run("signatures", path, 0, least=3000)
