"""Studentized differences, their pool, pairs that meet by chance, and q over families: each computed again, slowly."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moescope import statistics as st
from moescope.analyses._shared.answer import gather
from moescope.statistics import pairs
from moescope.statistics.dealing import studentized

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("paired", [False, True])
def test_differences_document_by_document(paired: bool) -> None:
    """Influence of every document on a value's share less that of the other values, squared and summed."""
    counts = RNG.integers(1, 9, (7, 3, 4)).astype(float)
    if not paired:
        counts[np.arange(7)[:, None] % 3 != np.arange(3)] = 0
    n, overall = counts.sum(2), counts.sum((0, 1)) / counts.sum()
    found = studentized(counts, 5)[0].against_rest()
    for value in range(3):
        own, rest = counts[:, value], counts.sum(1) - counts[:, value]
        size, other = n[:, value], n.sum(1) - n[:, value]
        least = overall * (1 - overall) / 4
        rate, beside = own.sum(0) / size.sum(), rest.sum(0) / other.sum()
        if paired:
            influence = (own - rate * size[:, None]) / size.sum() - (rest - beside * other[:, None]) / other.sum()
            spread = (influence**2).sum(0) * 7 / 6
            assert (spread > least / size.sum() + least / other.sum()).all()
        else:
            parts = [(own, rate, size), (rest, beside, other)]
            spread = np.sum([drawn_together(x, r, s, 4 * least) for x, r, s in parts], axis=0)
        assert found[value] == pytest.approx((rate - beside) / np.sqrt(spread), rel=1e-4)


def drawn_together(x: np.ndarray, rate: np.ndarray, size: np.ndarray, binomial: np.ndarray) -> np.ndarray:
    """Variance of a group's rates: of its documents, and of twenty more that have what all cells have in common."""
    m = (size > 0).sum()
    own = ((x - rate * size[:, None]) ** 2).sum(0) / size.sum() ** 2 * m / (m - 1)
    shared = (own * size.sum() / binomial).mean() * binomial / size.sum()
    return np.maximum(((m - 1) * own + 20 * shared) / (m + 19), binomial / 4 / size.sum())


def test_dealt_values_keep_documents_whole() -> None:
    counts = np.zeros((6, 2, 3))
    counts[np.arange(6), np.arange(6) % 2] = RNG.integers(1, 9, (6, 3))
    observed, null = studentized(counts, 200)
    assert observed.counts == pytest.approx(counts.sum(0), rel=1e-5)
    assert null.counts.sum(1) == pytest.approx(np.tile(counts.sum((0, 1)), (200, 1)), rel=1e-5)
    rows = counts.sum(1)
    possible = {tuple(rows[list(which)].sum(0).round()) for which in combinations(range(6), 3)}
    assert {tuple(table[0].round()) for table in null.counts} <= possible


def test_one_document_says_nothing() -> None:
    counts = np.zeros((4, 2, 3))
    counts[[0, 1, 2], 0], counts[3, 1] = RNG.integers(1, 9, (3, 3)), 5
    assert np.isnan(studentized(counts, 3)[0].against_rest()).all()


def test_a_pool_counts_all_that_is_in_it() -> None:
    pool = st.Pool()
    pool.add(np.array([[0.5, -2.0], [1.0, np.nan]]))
    pool.add(np.array([[3.0], [-0.1]]))
    assert pool.p(np.array([-2.0, 0.0, 10.0, np.nan])).tolist() == pytest.approx([3 / 6, 6 / 6, 1 / 6, np.nan], nan_ok=True)
    assert pool.floor == 1 / 6
    assert pool.draws == 2


@pytest.mark.parametrize("df", [400, 12, 5])
def test_the_tail_of_a_pool_errs_to_the_larger_p(df: int) -> None:
    """Beyond what 20,000 values count: Student's t of light and heavy tails; at 1e-5 and 1e-6, on average over twenty pools."""
    rng, said = np.random.default_rng(0), []
    far = stats.t.isf([5e-6, 5e-7], df)
    for _ in range(20):
        pool = st.Pool()
        pool.add(rng.standard_t(df, (1000, 20)))
        said.append(pool.p(far))
        assert pool.p(np.array([1e9])) == pytest.approx(pool.floor / pool.REACH)
    mean = np.exp(np.log(said).mean(0))
    assert (mean >= np.array([1e-5, 1e-6]) / (1.5 if df > 5 else 4)).all()
    assert (mean <= np.array([1e-5, 1e-6]) * 30).all()


def test_families_weigh_alike_and_twins_count_once() -> None:
    p = np.array([0.01, 0.04, 0.02, 0.9, 0.01, 0.04, np.nan])
    family = np.array(["a", "a", "b", "b", "c", "c", "c"])  # c is a under another name
    assert st.fdr(p, family).tolist() == pytest.approx([0.04, 0.08, 0.08, 1, 0.04, 0.08, np.nan], nan_ok=True)


def test_what_is_true_of_one_attribute_makes_no_room_for_chance_in_another() -> None:
    """Hundreds of cells that follow the token's id must not carry a cell of the next id that 1 in 10,000 would."""
    figures = pd.DataFrame({"name": ["a"], "estimator": ["b"], "subset": [""], "p": [0.9]})
    p = np.concatenate([np.full(500, 1e-9), np.linspace(1e-4, 1, 1000)])
    cells = pd.DataFrame({"attribute": np.repeat(["input id", "next id"], (500, 1000)), "p": p})
    gather([figures], cells)
    assert (cells["q"] <= 0.05).tolist() == [True] * 500 + [False] * 1000


@pytest.mark.parametrize(("shape", "draws"), [(4.0, 99), (60.0, 99), (2.0, 499)])
def test_fitted_tails_are_level_far_out(shape: float, draws: int) -> None:
    """p through a Pearson III curve and through Student's t at or under x in no more than twice x of cases, down to 1e-4."""
    rng, cases = np.random.default_rng(0), 60_000
    values = rng.gamma(shape, size=cases)
    null = rng.gamma(shape, size=(draws, cases // 20))
    p = np.concatenate([np.asarray(st.curve_tail(part, null)) for part in np.array_split(values, 20)])
    for level in (1e-2, 1e-3, 1e-4):
        assert np.mean(p <= level) <= 2 * level + 3 * np.sqrt(level / cases)
    t = st.t_tail(rng.normal(size=cases // 20), rng.normal(size=(draws, cases // 20)))
    assert np.mean(t <= 1e-2) <= 0.02
    assert min(p.min(), t.min()) >= st.FLOOR


def test_no_fitted_tail_is_believed_below_its_floor() -> None:
    null = np.random.default_rng(0).gamma(4.0, size=99)
    assert st.curve_tail(1e9, null) == st.t_tail(np.array(1e9), null) == st.FLOOR
    assert st.p_value(np.array(1e9), null) == 1 / 100


@pytest.mark.parametrize(("experts", "k"), [(4, 2), (6, 3), (7, 6), (8, 4)])
def test_meetings_by_enumeration(experts: int, k: int) -> None:
    """All sets of k weighed by the product of their weights, for three documents."""
    w, tokens = RNG.dirichlet(np.full(experts, 3.0), 3), np.array([5.0, 80.0, 11.0])
    load, expected = np.zeros((3, experts)), np.zeros((experts, experts))
    for document in range(3):
        sets = list(combinations(range(experts), k))
        weight = np.array([w[document][list(s)].prod() for s in sets])
        for chosen, share in zip(sets, weight / weight.sum()):
            load[document, list(chosen)] += share * tokens[document]
            for i, j in combinations(chosen, 2):
                expected[[i, j], [j, i]] += share * tokens[document]
    assert pairs.meetings(load, tokens, k) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("experts", "k", "length"), [(8, 2, 30), (16, 3, 400), (16, 14, 100)])
def test_pairs_of_independent_routers_are_standard(experts: int, k: int, length: int) -> None:
    """Over documents of `length` tokens, experts unevenly used: counts less what is expected, over what loads leave."""
    rng, found = np.random.default_rng(0), []
    upper = np.triu_indices(experts, 1)
    for _ in range(12):
        z = rng.gumbel(size=(6000, experts)) + np.arange(experts) / experts
        hot = np.zeros((6000, experts))
        hot[np.arange(6000)[:, None], np.argsort(-z, axis=1)[:, :k]] = 1
        load = hot.reshape(-1, length, experts).sum(1)
        expected = pairs.meetings(load, np.full(len(load), float(length)), k)
        left = pairs.left_variance(expected, load.sum(0), 6000)
        error = np.sqrt(expected * (1 - expected / 6000) * left)
        found.append((hot.T @ hot - expected)[upper] / error[upper])
    assert abs(np.mean(found)) < 0.02
    assert (0.9 if k < 10 else 0.75) < np.std(found) < 1.1


def test_meetings_keep_loads() -> None:
    """Every expert meets k − 1 others whenever it runs; above MANY by an approximation."""
    load = RNG.multinomial(300, np.full(40, 1 / 40), 6).astype(float)
    for k, near in ((3, 1e-3), (15, 0.05)):
        tokens = load.sum(1) / k
        met = pairs.meetings(load, tokens, k)
        assert met.sum(1) == pytest.approx((k - 1) * load.sum(0), rel=near)


def test_information_keeps_its_interval_where_there_is_none() -> None:
    """|e|² of nine normal deviates less its mean: bootstrapped from noise, the interval holds 0 in 93 to 97 % of cases."""
    rng, hits = np.random.default_rng(0), 0
    null = rng.chisquare(9, 4000)
    for _ in range(1000):
        x = rng.standard_normal(9)
        draws = ((x + rng.standard_normal((400, 9))) ** 2).sum(1)
        value = (x**2).sum() - null.mean()
        low, high = st.information_interval(np.array(value), draws, null, 1000)
        hits += bool(low <= 0 <= high)
    assert 0.93 <= hits / 1000 <= 0.97


def test_groups_of_documents_are_of_one_stratum() -> None:
    counts, strata = RNG.integers(0, 5, (5000, 2)).astype(float), np.repeat([0, 1], (4960, 40))
    few, home = st.resampling.grouped(counts, strata)
    assert home is not None
    assert (len(few), (home == 1).sum()) == (512 + 40, 40)
    assert few.sum(0).tolist() == counts.sum(0).tolist()
    assert few[home == 1].tolist() == counts[4960:].tolist()
    assert stats.describe(few[home == 0].sum(1)).mean > 0
