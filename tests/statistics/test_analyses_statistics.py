"""Numbers from counts: hand-worked tables to 1e-9, second implementations, coverage and error rates."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from moescope import statistics as st

EXACT = {"rel": 1e-9, "abs": 1e-9}


def test_load_measures_of_a_hand_worked_row():
    counts = np.array([4, 2, 1, 1])  # shares 1/2, 1/4, 1/8, 1/8
    assert st.entropy(counts) == pytest.approx(1.75, **EXACT)
    assert st.gini(counts) == pytest.approx(0.3125, **EXACT)  # (-3*1/8 - 1/8 + 1/4 + 3*1/2) / 4
    assert st.variation(counts) == pytest.approx(np.sqrt(1.5) / 2, **EXACT)  # mean 2, variance 1.5
    assert st.max_violation(counts) == pytest.approx(1.0, **EXACT)
    assert st.entropy(np.zeros(4)) == 0


def test_information_of_a_hand_worked_table():
    table = np.array([[2, 0], [1, 1]])
    bits = 1 + (0.75 * np.log2(4 / 3) + 0.25 * 2) - 1.5  # H(row) + H(column) - H(cells) with cells 1/2, 1/4, 1/4
    assert st.mutual_information(table) == pytest.approx(bits, **EXACT)
    assert st.miller_madow(table) == pytest.approx(bits + (2 + 2 - 3 - 1) / 8 / np.log(2), **EXACT)
    assert st.jensen_shannon(np.array([1, 0]), np.array([0, 5])) == pytest.approx(1.0, **EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_information_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, 300), rng.integers(0, 6, 300)
    b = np.where(rng.random(300) < 0.3, a, b)
    table = np.zeros((4, 6))
    np.add.at(table, (a, b), 1)
    assert st.mutual_information(table) == pytest.approx(mutual_info_score(a, b) / np.log(2), **EXACT)
    assert st.normalized_information(table) == pytest.approx(normalized_mutual_info_score(a, b), **EXACT)
    p, q = rng.random(5), rng.random(5)
    p, q = p / p.sum(), q / q.sum()
    naive = (scipy_entropy(p, (p + q) / 2, base=2) + scipy_entropy(q, (p + q) / 2, base=2)) / 2
    assert st.jensen_shannon(p, q) == pytest.approx(naive, **EXACT)


def test_gini_agrees_with_mean_difference():
    x = np.random.default_rng(0).random(9)
    naive = np.abs(x[:, None] - x[None]).mean() / (2 * x.mean())
    assert st.gini(x) == pytest.approx(naive, **EXACT)


def test_independent_labels_have_no_information_beyond_bias():
    rng = np.random.default_rng(0)
    tables = rng.multinomial(500, np.full(40, 1 / 40), size=400).reshape(-1, 8, 5)
    assert st.mutual_information(tables).mean() > 0.03  # the plug-in's bias
    assert abs(st.miller_madow(tables).mean()) < 0.002


def test_bootstrap_draws_documents_within_strata():
    strata = np.array([0, 0, 0, 1, 1])
    weights = st.bootstrap_weights(5, 200, strata=strata)
    assert (weights[:, :3].sum(1) == 3).all()
    assert (weights[:, 3:].sum(1) == 2).all()
    counts = np.arange(10.0).reshape(5, 2)
    assert np.allclose(st.resampled(weights, counts), [[(w * column).sum() for column in counts.T] for w in weights])


@pytest.mark.parametrize("units", [8, 30])
def test_interval_covers_a_share_as_often_as_it_says(units):
    """Documents differ in their true share; the interval over documents must cover the mean share."""
    rng, covered, runs = np.random.default_rng(units), 0, 500
    for seed in range(runs):
        share = rng.beta(4, 12, units)  # mean 0.25
        hits = rng.binomial(50, share)
        counts = np.stack([hits, np.full(units, 50)], axis=1).astype(float)
        drawn = st.resampled(st.bootstrap_weights(units, 300, seed), counts)
        low, high = st.interval(hits.sum() / (50 * units), drawn[:, 0] / drawn[:, 1], units)
        covered += low <= 0.25 <= high
    assert 0.915 <= covered / runs <= 0.985


def test_no_interval_from_a_handful_of_documents():
    draws = np.random.default_rng(0).random((100, 2))
    low, high = st.interval(np.array([0.5, 0.5]), draws, np.array([4, 5]))
    assert np.isnan([low[0], high[0]]).all()
    assert np.isfinite([low[1], high[1]]).all()


def test_p_values_count_the_observed_one_in():
    null = np.arange(9.0)[:, None]
    assert st.p_value(np.array([100.0]), null) == pytest.approx(0.1)
    assert st.p_value(np.array([-1.0]), null, "less") == pytest.approx(0.1)
    assert st.p_value(np.array([4.0]), null, "both") == pytest.approx(1.0)


def test_t_tail_is_level_under_its_null():
    rng = np.random.default_rng(0)
    p = [float(st.t_tail(rng.normal(), rng.normal(size=19))) for _ in range(4000)]
    assert 0.04 <= np.mean(np.array(p) < 0.05) <= 0.06


def test_fdr_of_a_hand_worked_row():
    p = np.array([0.01, np.nan, 0.04, 0.03])
    assert st.fdr(p) == pytest.approx([0.03, np.nan, 0.04, 0.04], nan_ok=True)


def test_permuted_keeps_groups():
    labels, within = np.array([1, 2, 3, 7, 8, 9]), np.array([0, 0, 1, 1, 0, 1])
    for row in st.permuted(labels, 50, within=within):
        assert sorted(row[within == 0]) == [1, 2, 8]
        assert sorted(row[within == 1]) == [3, 7, 9]
    assert len({tuple(a) != tuple(b) for a, b in pairwise(st.permuted(labels, 50))}) >= 1
