"""Shared grouping: the same groups under other names are found, independent ones are not."""

import pytest
import synthetic

import moescope
from moescope import analyses
from moescope.analyses.grouping import NAME
from moescope.errors import AnalysisError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Run 0; run 1 with the experts of run 0 under other names, in two of three layers; run 2 by itself; run 3 by document."""
    path = tmp_path_factory.mktemp("grouping") / "s.duckdb"

    def renamed(read, layer, logits):
        logits[:] = logits[:, [3, 0, 7, 1, 6, 2, 5, 4]]

    def by_document(read, layer, logits):
        logits[range(len(logits)), read.document % 8] += 4

    synthetic.make(path, seed=1)
    synthetic.make(path, renamed, seed=1, layers=(0, 2, 5))
    synthetic.make(path, seed=2)
    synthetic.make(path, by_document, seed=3)
    synthetic.make(path, by_document, seed=4)
    with moescope.open(path) as opened:
        yield opened


def test_other_names_are_the_same_groups(store):
    answer = analyses.run("grouping", store, 1, other=0)
    figures = answer.figures(NAME).set_index(["layer", "subset"])
    for layer in (0, 2):
        row = figures.loc[(layer, f"decoder {layer} of run 0")]
        assert row["value"] == pytest.approx(1, abs=1e-3)
        assert (row["ci_low"] > 0.99, row["q"] < 0.01, row["n"], row["units"]) == (True, True, 1920, 24)
    rest = figures.drop([(layer, f"decoder {layer} of run 0") for layer in (0, 2)])
    assert (len(rest), rest["value"].abs().max() < 0.01, rest["q"].min() > 0.05) == (7, True, True)
    said = "The layers of runs 1 and 0 put tokens together more than documents alone would give: most layer "
    assert answer.verdict.sentence.startswith(said)
    assert "which share 100 % [100, 100] of their information, against 0" in answer.verdict.sentence
    assert list(answer.charts()) == ["layer by layer"]


def test_independent_routers_share_nothing(store):
    figures = analyses.run("grouping", store, 2, other=0).figures(NAME)
    assert (len(figures), figures["value"].abs().max() < 0.01, figures["q"].min() > 0.05) == (9, True, True)


def test_what_documents_alone_give_is_no_finding(store):
    """Two routers that only know the document share information, and no more than the null says."""
    figures = analyses.run("grouping", store, 4, other=3).figures(NAME)
    assert figures["value"].min() > 0.2
    assert (figures["value"] - figures["null_mean"]).abs().max() < 0.02
    assert figures["q"].min() > 0.05


def test_default_partner_and_refusals(store, tmp_path):
    assert analyses.run("grouping", store, 0).notes[-1:] == ["Run 0 against run 4."]
    with pytest.raises(AnalysisError, match="cannot be compared with itself"):
        analyses.run("grouping", store, 0, other=0)
    with pytest.raises(AnalysisError, match="has no run 9"):
        analyses.run("grouping", store, 0, other=9)
    synthetic.make(tmp_path / "one.duckdb", documents=6)
    with moescope.open(tmp_path / "one.duckdb") as alone, pytest.raises(AnalysisError, match="no other run of"):
        analyses.run("grouping", alone)
