"""Information given the token: by hand, against scikit-learn, under the null, with something planted; its interval."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from moescope import statistics as st
from moescope.statistics.conditional import Information, information, label_entropy
from moescope.statistics.labelled import labelled

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def words(
    seed: int, upos: float = 0.0, document: float = 0.0, topical: float = 0.0, documents: int = 30, tokens: int = 60
) -> Arrays:
    """Document, word, label and first expert of tokens whose routing follows the word, and what is planted."""
    rng, n = np.random.default_rng([seed, 7]), documents * tokens
    doc, word = np.arange(n) // tokens, np.minimum(rng.zipf(1.4, n), 60) - 1
    flip = rng.random(n) < 1 / (1 + np.exp(-topical * rng.normal(size=documents)[doc]))
    label = (word + flip) % 4
    z = rng.gumbel(size=(n, 8)) + 3 * np.random.default_rng(5).normal(size=(60, 8))[word]
    z += document * rng.normal(size=(documents, 8))[doc]
    z[label == 1, 3] += upos
    return doc, word, label, z.argmax(1)


def ask(arrays: Arrays, given: str = "token", draws: int = 99, seed: int = 0) -> Information:
    doc, word, label, expert = arrays
    stratum = {"nothing": 0 * word, "token": word, "token and document": word * 1000 + doc}[given]
    return information(labelled(label, stratum, doc, None, draws, seed), expert)


def test_by_hand() -> None:
    """Word 0 tells all (1 bit, 4 of 8 tokens), word 1 nothing, word 2 has one label: half a bit; H(L | word) = 6/8."""
    word = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    label = np.array([0, 0, 1, 1, 0, 1, 0, 0])
    expert = np.array([5, 5, 2, 2, 3, 3, 1, 0])
    shared = labelled(label, word, np.arange(8) // 2, None, 3)
    assert information(shared, expert).plugin == pytest.approx(0.5, abs=1e-12)
    assert label_entropy(shared) == pytest.approx(0.75, abs=1e-12)
    assert sorted(shared.rows) == [0, 1, 2, 3, 4, 5]
    assert shared.total.tolist() == [2, 2, 2, 2]


def test_against_scikit_learn() -> None:
    _, word, label, expert = arrays = words(1, upos=3)
    found = ask(arrays, draws=400)
    plugin = expected = 0.0
    for v in np.unique(word):
        of = word == v
        share = of.mean() / np.log(2)
        plugin += share * mutual_info_score(label[of], expert[of])
        table = contingency_matrix(label[of], expert[of], sparse=True).astype(np.int64)
        expected += share * expected_mutual_information(table, int(of.sum()))
    assert found.plugin == pytest.approx(plugin, abs=1e-9)
    assert found.null.mean() == pytest.approx(expected, abs=4 * found.null.std() / 20)
    assert found.sums.sum() / found.total.sum() == pytest.approx(found.value, abs=1e-9)


def test_given_nothing_is_mutual_information() -> None:
    _, _, label, expert = arrays = words(2)
    assert ask(arrays, "nothing").plugin == pytest.approx(mutual_info_score(label, expert) / np.log(2), abs=1e-9)


def test_dropped_tokens_and_missing_labels_count_for_nothing() -> None:
    word, label = np.array([0, 0, 0, 0, 0, 0]), np.array([0, 1, 0, 1, 1, -1])
    expert = np.array([0, 1, 0, 1, -1, 1])
    shared = labelled(label, word, np.zeros(6, int), None, 2)
    assert information(shared, expert).plugin == pytest.approx(0.8, abs=1e-12)
    assert information(shared, np.full(6, -1)).value == 0
    assert information(shared, np.full(6, -1)).p == 1


def test_permutations_keep_what_is_held() -> None:
    doc, word, label, _ = words(3)
    shared = labelled(label, word, doc, None, 5)
    for shuffled in shared.permutations:
        cells = (np.bincount(shared.stratum * 4 + code, minlength=240) for code in (shared.label, shuffled))
        assert np.array_equal(*cells)
        assert not np.array_equal(shuffled, shared.label)
    whole = labelled(doc % 3, word, doc, doc, 5)
    for shuffled in whole.permutations:
        assert all(len(np.unique(shuffled[whole.document == d])) == 1 for d in range(30))
        assert not np.array_equal(shuffled, whole.label)


def test_honesty() -> None:
    """Routing follows the token alone: much information, none of it beyond the token."""
    naive, given = zip(*[(ask(words(s), "nothing"), ask(words(s))) for s in range(40)])
    assert min(f.value for f in naive) > 0.15
    assert max(f.p for f in naive) == st.FLOOR
    values = np.array([f.value for f in given])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(40)
    assert np.mean([f.p <= 0.05 for f in given]) <= 0.125
    assert np.mean([f.plugin for f in given]) > 0.04


def test_planted() -> None:
    found = [ask(words(s, upos=4)) for s in range(5)]
    assert max(f.p for f in found) == st.FLOOR
    assert all(0.1 < f.value < 0.3 for f in found)


def test_a_topic_moves_both() -> None:
    """Documents prefer an expert and a part of speech: given the token that shows, given the document too it does not."""
    arrays = [words(s, document=2, topical=1.5) for s in range(40)]
    assert np.mean([ask(a).p <= 0.05 for a in arrays]) > 0.25
    assert np.mean([ask(a, "token and document").p <= 0.05 for a in arrays]) <= 0.125


def test_tail_of_the_null() -> None:
    null = np.random.default_rng(0).gamma(9, 0.1, size=2000)
    assert st.curve_tail(float(np.quantile(null, 0.99)), null) == pytest.approx(0.01, rel=0.3)
    assert st.curve_tail(1.0, np.zeros(9)) == 1
    assert st.curve_tail(100.0, null) == st.FLOOR == 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("case", "given"), [({}, "token"), ({"document": 2.0}, "token"),
                                             ({"document": 2.0, "topical": 1.5}, "token and document")])  # fmt: skip
def test_share_of_findings_is_the_level(case: dict[str, float], given: str) -> None:
    p = np.array([ask(words(s, **case), given, seed=s).p for s in range(200)])
    assert np.mean(p <= 0.05) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(p <= 0.01) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("case", [{}, {"upos": 2.0}, {"upos": 4.0}, {"upos": 2.0, "document": 1.0}])
def test_interval_covers_the_truth(case: dict[str, float]) -> None:
    """The truth is the value of half a million tokens."""
    truth = ask(words(1000, documents=8000, **case), draws=2).value if case else 0.0
    hits = 0
    for seed in range(100):
        found = ask(words(seed, **case), seed=seed)
        draws = found.draws(st.bootstrap_weights(len(found.total), 200))
        low, high = st.interval(np.array(found.value), draws, len(found.total))
        hits += bool(low <= truth <= high)
    assert hits / 100 >= 0.9
