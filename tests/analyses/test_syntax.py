"""Form against meaning over stores: what is planted is found and named, what is not is not."""

from pathlib import Path

import labelled
import numpy as np
import pytest
import synthetic

from moescope import analyses
from moescope import statistics as st
from moescope.errors import AnalysisError

TOKEN, NOTHING = "I(expert; label | token) (bits)", "I(expert; label) (bits)"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: 0 follows the word alone, 1 sends verbs to expert 3, 2 follows the sense."""
    where = tmp_path_factory.mktemp("syntax") / "x.duckdb"
    labelled.make(where)
    labelled.make(where, upos=4.0)
    labelled.make(where, sense=1.5)
    return where


def test_token_identity_alone(path: Path) -> None:
    """The honesty test: plenty of information, none beyond the token."""
    answer = analyses.run("syntax", path, 0)
    plain = answer.figures(NOTHING, estimator="corrected", subset="upos")
    given = answer.figures(TOKEN, estimator="corrected")
    assert (plain["value"] > 0.25).all()
    assert (plain["p"] == st.FLOOR).all()
    assert (given["q"] > 0.05).all()
    assert ((given["ci_low"] < 0) & (given["ci_high"] > 0)).sum() >= 7  # of eight
    biased = answer.figures(TOKEN, estimator="plug-in", subset="upos")
    assert (biased["value"] > 0.04).all()
    np.testing.assert_allclose(biased["value"] - biased["null_mean"], given[given["subset"] == "upos"]["value"], atol=1e-9)


@pytest.mark.parametrize(("run", "kind", "sign"), [(1, "upos", 1), (2, "supersense", -1)])
def test_planted(path: Path, run: int, kind: str, sign: int) -> None:
    answer = analyses.run("syntax", path, run)
    given = answer.figures(TOKEN, estimator="corrected")
    found = given[given["q"] <= 0.05]
    assert set(found["subset"]) - {"deprel"} == {kind}
    assert len(found[found["subset"] == kind]) == 2
    assert (found["ci_low"] > 0).all()
    versus = answer.figures("form minus meaning (shares known)", subset="upos - supersense")
    assert (sign * versus["value"] > 0).all()
    assert (versus["q"] <= 0.05).all()
    contrast = "for contrast: given the token, topics included"
    assert set(answer.charts()) == {"information given token and document", contrast, "share of label known"}
    assert f" of {kind} beyond the token and document in layer " in answer.verdict.follows
    assert "in both routers" in answer.verdict.follows


def test_conditions_and_kinds(path: Path) -> None:
    answer = analyses.run("syntax", path, 1, kinds="upos, domain", given="token", permutations=19)
    assert set(answer.figures()["subset"]) == {"upos", "domain"}
    table = answer.frames["kinds"].set_index("kind")
    assert table.loc["upos", "permuted over"] == "token"
    assert table.loc["domain", "permuted over"] == "document"
    whole = analyses.run("syntax", path, 1)
    assert "upos - supersense" in set(whole.figures()["subset"])
    assert list(dict.fromkeys(whole.frames["kinds"]["given"])) == ["nothing", "token", "token and document", "token and upos"]


def test_limit_draws_whole_documents(path: Path) -> None:
    answer = analyses.run("syntax", path, 1, kinds="upos", given="nothing", limit=600)
    row = answer.figures(NOTHING, estimator="plug-in").iloc[0]
    assert 300 <= row["n"] <= 600
    assert any("of 1800 tokens" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"kinds": "xpos"}, "no label 'xpos'.*it has: .*upos"), ({"given": "weather"}, "nothing, token, token and document")],
)
def test_refusals(path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        analyses.run("syntax", path, 0, **options)


def test_images_have_no_syntax(tmp_path: Path) -> None:
    synthetic.make(tmp_path / "x.duckdb", side=4, documents=8)
    for name in ("syntax", "syntax_experts", "senses", "path_probe", "signatures"):
        with pytest.raises(AnalysisError, match="no text tokens"):
            analyses.run(name, tmp_path / "x.duckdb")


def test_expert_of_verbs(path: Path) -> None:
    """Expert 3 takes the verbs, in both layers; where routing follows the word alone no expert follows a label."""
    answer = analyses.run("syntax_experts", path, 1)
    table = answer.frames["experts"]
    first = table.head(2)
    assert first[["expert", "label"]].values.tolist() == [[3, "upos=VERB"], [3, "upos=VERB"]]
    assert sorted(first["layer"]) == [0, 2]
    assert (first["ci_low"] > 0.02).all()
    assert (first[["q", "q given the token"]] < 0.001).all(axis=None)
    assert (first["excess share"] > 0.1).all()
    nothing = analyses.run("syntax_experts", path, 0)
    assert nothing.frames["experts"].empty
    assert set(nothing.charts()) == {"experts by upos", "experts by supersense"}


def test_membership_by_hand() -> None:
    """Word 0: expert 1 ran for both verbs and no noun: 1 bit over 4 of 6 tokens; expert 0 always: nothing."""
    from moescope.analyses.syntax_experts import _Membership
    from moescope.statistics.labelled import Cells

    stratum, label = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0, 1])
    row, expert = np.array([0, 1, 2, 3, 4, 5, 2, 3, 4, 5]), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    measure, cells = _Membership(stratum, row, expert, 3, 2), Cells.of(stratum, label, 2)
    value, sums = measure(cells), measure.sums(cells, np.array([0, 0, 0, 1, 1, 1]), 2)
    np.testing.assert_allclose(value, [0, 4, 0], atol=1e-12)
    np.testing.assert_allclose(sums, [[0, 3, 0], [0, 1, 0]], atol=1e-12)
    best, share = measure.excess(label)
    assert best[1] == 1
    np.testing.assert_allclose(share[1], 1 / 3, atol=1e-12)


def test_same_word_different_sense(path: Path) -> None:
    rows = {run: analyses.run("senses", path, run).figures("overlap, same minus different") for run in (0, 1, 2)}
    assert (rows[0]["q"] > 0.05).all()
    assert ((rows[0]["ci_low"] < 0) & (rows[0]["ci_high"] > 0)).all()
    for run, kind in ((1, "upos"), (2, "supersense")):
        found = rows[run][rows[run]["q"] <= 0.05]
        assert set(found["subset"]) == {kind}
        assert (found["ci_low"] > 0).all()


def test_overlap_by_hand() -> None:
    """Uses {0,1} {0,1} of sense A, {0,2} {2,3} of sense B, k = 2: same (2 + 1)/2/2, different (1 + 0 + 1 + 0)/4/2."""
    from moescope.analyses._shared.arrays.token_table import Kind
    from moescope.analyses.senses import Uses, _Overlap

    chosen, label = np.array([[0, 1], [1, 0], [0, 2], [2, 3]]), np.array([0, 0, 1, 1])
    kind = Kind("sense", label, ["A", "B"], None, "token")
    uses = Uses(kind, np.arange(4), np.zeros(4, int), label, np.arange(4), 4)
    overlap = _Overlap(chosen, 4, uses)
    alike, unlike, weight = overlap.by_word(uses.cell(label))
    np.testing.assert_allclose([alike[0], unlike[0], weight[0]], [0.75, 0.25, 2 * 4 / 6], atol=1e-12)
    np.testing.assert_allclose(overlap.influence(uses.cell(label)).sum(0), [0, 0], atol=1e-12)


@pytest.mark.parametrize(("topic", "own", "found"), [(0.8, 0.0, ("between",)), (0.5, 0.6, ("between", "within"))])
def test_a_topic_moves_pairs_between_documents_only(topic: float, own: float, found: tuple[str, ...]) -> None:
    """Experts and labels follow the document's topic (or the expert follows the label of the use itself)."""
    from moescope.analyses import senses
    from moescope.analyses._shared.arrays.token_table import Kind

    rng, n, documents = np.random.default_rng(0), 4000, 40
    document, word = rng.integers(0, documents, n), rng.integers(0, 10, n)
    lean = document % 2
    label = np.where(rng.random(n) < topic, lean, 1 - lean)
    expert = np.where(rng.random(n) < own, label, np.where(rng.random(n) < topic, lean, rng.integers(0, 2, n)))
    kind = Kind("sense", label, ["A", "B"], None, "token")
    for form, draw in (("between documents", senses._uses), ("within documents", senses._inside)):
        uses = draw(kind, word, document)
        shuffled = uses.cell(st.permuted(uses.label, 199, within=uses.word))
        row = senses._figures({}, form, expert[:, None].astype(np.int16), 2, uses, shuffled)[-1].iloc[0]
        assert (row["p"] <= 0.01) == (form.split()[0] in found)
        assert (row["ci_low"] > 0) == (form.split()[0] in found)


def test_path_probe(path: Path) -> None:
    """Verbs at expert 3: the path knows them in context; where routing follows the word, it knows the word."""
    planted, word = (analyses.run("path_probe", path, run) for run in (1, 0))
    row = planted.figures("path beyond token and document").iloc[0]
    assert row["p"] == st.FLOOR
    assert row["ci_low"] > 0.02
    assert planted.figures("path beyond the token").iloc[0]["ci_low"] > 0.08
    row = word.figures("path beyond token and document").iloc[0]
    assert row["ci_low"] < 0 < row["ci_high"]
    accuracy = word.figures("accuracy").set_index("estimator")["value"]
    assert accuracy["majority"] < accuracy["path"] < accuracy["word form"]
    assert set(word.frames["by label"]["label"]) == {"NOUN", "VERB", "ADJ", "ADV"}
    assert set(word.charts()) == {"accuracy"}
