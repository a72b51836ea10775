"""Intervals, p values, shuffles and strata on draws that are laid out by hand: exact numbers, no simulation."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from moescope import statistics as st
from moescope.analyses.structure import repetition
from moescope.statistics import conditional, participation

EXACT = {"rel": 1e-12, "abs": 1e-12}
DRAWS = np.array([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0], [3.0, 6.0], [10.0, 7.0]])


def test_interval_of_fixed_draws() -> None:
    """Quantiles about the draws' mean, moved to the value, widened for six documents."""
    low, high = st.interval(np.array([5.0, 1.0]), DRAWS, np.array([6, 6]))
    wide = np.sqrt(6 / 5) * 2.570581835636314 / 1.959963984540054  # t with 5 degrees over the normal
    ends = [(0.1, 9.3), (3.1, 6.9)]  # by linear interpolation between draws: 0.025 of four steps, and from the other end
    means = [3.2, 5.0]
    assert low == pytest.approx([v + wide * (a - m) for v, (a, _), m in zip((5, 1), ends, means)], **EXACT)
    assert high == pytest.approx([v + wide * (b - m) for v, (_, b), m in zip((5, 1), ends, means)], **EXACT)


def test_interval_at_another_level_and_for_few() -> None:
    low, high = st.interval(np.array(0.0), DRAWS[:, 0], 11, level=0.5)
    wide = np.sqrt(11 / 10) * stats.t.ppf(0.75, 10) / stats.norm.ppf(0.75)
    assert (low, high) == pytest.approx((wide * (1 - 3.2), wide * (3 - 3.2)), **EXACT)
    assert np.isnan(st.interval(np.array([1.0, 2.0]), None, 99)).all()
    assert np.isnan(st.interval(np.array(1.0), DRAWS[:, 0], st.MIN_UNITS - 1)).all()
    assert np.isfinite(st.interval(np.array(1.0), DRAWS[:, 0], st.MIN_UNITS)).all()


P_VALUES = [  # value, null, at least, at most: the observed one is counted in
    (2.0, [0, 1, 2, 3], 3 / 5, 4 / 5),
    (2.5, [0, 1, 2, 3], 2 / 5, 4 / 5),
    (9.0, [0, 1, 2, 3], 1 / 5, 5 / 5),
    (-9.0, [0, 1, 2, 3], 5 / 5, 1 / 5),
    (0.3, [0.1 + 0.2, 0.3, 0.30000000000000004], 1.0, 1.0),  # equal but for rounding
    (0.0, [0, 0, 1], 1.0, 3 / 4),
    (0.0, [-1e-19, 1.0], 1.0, 2 / 3),
]


@pytest.mark.parametrize(("value", "null", "above", "below"), P_VALUES)
def test_p_values(value: float, null: list[float], above: float, below: float) -> None:
    said = {side: float(st.p_value(np.array(value), np.array(null), side)) for side in ("greater", "less", "both")}
    assert said == pytest.approx({"greater": above, "less": below, "both": min(2 * min(above, below), 1)}, **EXACT)


def test_p_values_by_column() -> None:
    null = np.array([[0.0, 5.0], [1.0, 6.0], [2.0, 7.0]])
    assert st.p_value(np.array([2.0, 4.0]), null) == pytest.approx([2 / 4, 4 / 4], **EXACT)


def test_tail_by_t() -> None:
    """One more draw of a normal: mean 2, standard deviation 1 (over n − 1) times √(1 + 1/3), two degrees of freedom."""
    null = np.array([1.0, 2.0, 3.0])
    t = (3.5 - 2) / np.sqrt(4 / 3)
    upper = float(stats.t.sf(t, 2))
    said = [float(st.t_tail(np.array(3.5), null, side)) for side in ("greater", "less", "both")]
    assert said == pytest.approx([upper, 1 - upper, 2 * upper], **EXACT)
    flat = np.array([2.0, 2.0, 2.0])
    assert [float(st.t_tail(np.array(v), flat)) for v in (3.0, 2.0, 1.0)] == [st.FLOOR, 0.5, 1.0]


def test_false_discovery() -> None:
    """Benjamini and Hochberg's own example: fifteen p values, four found at 5 %."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    order = np.random.default_rng(0).permutation(15)
    q = st.fdr(np.array(p)[order])
    expected = np.array([min(p[j] * 15 / (j + 1) for j in range(i, 15)) for i in range(15)])
    assert q == pytest.approx(expected[order], **EXACT)
    assert int((q <= 0.05).sum()) == 4
    assert np.isnan(st.fdr(np.array([np.nan, np.nan]))).all()


@pytest.mark.parametrize("strata", [None, [0, 0, 0, 0], [0, 0, 1, 1, 1], [5, 2, 5, 2, 2, 5, 9]])
def test_documents_are_drawn_within_their_stratum(strata: list[int] | None) -> None:
    """As often as the stratum has members, each with the same chance: means of 1, variances (n − 1)/n, none across strata."""
    units = len(strata or range(6))
    weights = st.bootstrap_weights(units, 20_000, 3, None if strata is None else np.array(strata))
    groups = np.array(strata if strata is not None else [0] * units)
    for group in set(groups.tolist()):
        members = groups == group
        assert (weights[:, members].sum(1) == members.sum()).all()
    size = np.array([(groups == g).sum() for g in groups])
    expected = np.where(groups[:, None] == groups, -1 / size, 0.0) + np.eye(units)
    assert weights.mean(0) == pytest.approx(np.ones(units), abs=0.05)
    assert np.cov(weights.T, bias=True) == pytest.approx(expected, abs=0.05)
    assert not weights.flags.writeable
    assert (st.bootstrap_weights(units, 5, 1) == st.bootstrap_weights(units, 5, 1)).all()
    assert (st.bootstrap_weights(units, 50, 1) != st.bootstrap_weights(units, 50, 2)).any()


def test_resampled_sums() -> None:
    weights, counts = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]), np.arange(12.0).reshape(3, 2, 2)
    assert st.resampled(weights, counts).tolist() == [[[8, 11], [14, 17]], [[12, 15], [18, 21]]]


@pytest.mark.parametrize("within", [[0, 0, 0], [1, 0, 0, 1], [7, -3, 7, 7, -3], [0]])
def test_orders_shuffle_within_and_evenly(within: list[int]) -> None:
    """Every order that keeps the groups comes up, as often as any other."""
    groups = np.array(within)
    n, draws = len(groups), 3000
    seen = [tuple(order.tolist()) for order in st.orders(groups, draws)]
    possible = {p for p in permutations(range(n)) if (groups[list(p)] == groups).all()}
    assert set(seen) == possible
    share = np.array([seen.count(p) for p in possible]) / draws
    assert share == pytest.approx(np.full(len(possible), 1 / len(possible)), abs=0.05)


def test_permuted_labels_without_groups_are_even() -> None:
    seen = [tuple(row.tolist()) for row in st.permuted(np.array([1, 2, 3]), 3000)]
    assert {p: seen.count(p) / 3000 for p in set(seen)} == pytest.approx(
        dict.fromkeys(permutations((1, 2, 3)), 1 / 6), abs=0.05
    )


def test_entropy_along_an_axis_and_of_nothing() -> None:
    counts = np.array([[1, 1, 2], [0, 0, 0]])
    assert st.entropy(counts) == pytest.approx([1.5, 0.0], **EXACT)
    assert st.entropy(counts, 0) == pytest.approx([0.0, 0.0, 0.0], **EXACT)
    assert st.shares(counts) == pytest.approx(np.array([[0.25, 0.25, 0.5], [0, 0, 0]]), **EXACT)
    assert st.normalized_information(np.array([[5, 0], [0, 0]])) == 0


def test_rows_and_columns_without_counts_need_no_correction() -> None:
    """Miller's m counts what occurs."""
    full = np.array([[3, 1], [1, 4]])
    padded = np.pad(full, ((0, 1), (1, 0)))
    assert st.miller_madow(padded) == pytest.approx(st.miller_madow(full), **EXACT)
    assert st.miller_madow(full) == pytest.approx(st.mutual_information(full) + (2 + 2 - 4 - 1) / 18 / np.log(2), **EXACT)


@pytest.mark.parametrize(
    ("experts", "k", "chance"),
    [(8, 1, 1 / 8), (8, 2, 1 - (6 * 5) / (8 * 7)), (4, 2, 1 - 2 / 12), (3, 2, 1.0), (4, 4, 1.0), (2, 3, 1.0),
     (64, 2, 1 - 62 * 61 / (64 * 63))],
)  # fmt: skip
def test_chance_that_two_sets_meet(experts: int, k: int, chance: float) -> None:
    assert repetition.chance_of_meeting(experts, k) == pytest.approx(chance, **EXACT)


def test_tail_of_fixed_nulls() -> None:
    """A shifted gamma of the null's mean, variance (over n − 1) and skewness, but no less skewed than a gamma; four draws."""

    def read(curve: float) -> float:
        return float(stats.t.sf(stats.norm.isf(curve) / np.sqrt(1.25), 3))

    null = np.array([1.0, 2.0, 3.0, 6.0])
    skew = float(stats.skew(null))
    assert skew < 2 * null.std(ddof=1) / 3  # the gamma's floor
    expected = read(stats.pearson3.sf(4.0, 2 * null.std(ddof=1) / 3, 3.0, null.std(ddof=1)))
    assert float(st.curve_tail(4.0, null)) == pytest.approx(expected, **EXACT)
    far = np.array([100.0, 100.1, 100.2, 130.0])
    assert stats.skew(far) > 2 * far.std(ddof=1) / far.mean()
    expected = read(stats.pearson3.sf(115.0, stats.skew(far), far.mean(), far.std(ddof=1)))
    assert float(st.curve_tail(115.0, far)) == pytest.approx(expected, **EXACT)
    many = np.arange(1.0, 31.0)
    assert float(st.curve_tail(21.0, many)) == pytest.approx(11 / 31, **EXACT)  # ten reach it, and are counted
    assert st.curve_tail(np.array([5.0, 5.0]), np.array([[0.0, 5.0], [0.0, 5.0]])).tolist() == [1.0, 1.0]


def test_influence_of_documents() -> None:
    """To first order: the sums of the documents drawn over their tokens, and the null's spread on top."""
    found = conditional.Information(0.5, np.array([0.1, 0.3]), np.array([2.0, -1.0, 0.5]), np.array([4.0, 2.0, 2.0]))
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    noise = np.random.default_rng(1).standard_normal(3) * 0.1
    assert found.draws(weights) == pytest.approx(np.array([1.5 / 8, 6 / 12, 1.5 / 6]) + noise, **EXACT)
    assert found.value == pytest.approx(0.3, **EXACT)


def ratio(draws: Any, units: int = 8, value: float = 4.0) -> tuple[float, float]:
    return participation.log_interval(value, np.asarray(draws, float), units)


def test_interval_on_the_logarithm() -> None:
    """value × exp(± t s); open above where a fortieth of the draws have no finite value, none for few documents."""
    draws = [1.0, 2.0, 4.0, 8.0]
    reach = np.exp(stats.t.ppf(0.975, 7) * np.log(draws).std())
    assert ratio(draws) == pytest.approx((4 / reach, 4 * reach), **EXACT)
    many = [1.0, 2.0] * 20
    assert np.isfinite(ratio([*many[:-1], np.inf])[1])  # one of forty: just
    assert ratio([*many[:-2], np.inf, np.inf])[1] == np.inf
    assert np.isfinite(ratio([*many[:-2], np.inf, np.inf])[0])
    for broken in (
        ratio(draws, st.MIN_UNITS - 1),
        ratio([np.inf, np.inf, np.inf, 1.0]),
        ratio(draws, value=np.inf),
        ratio(draws, value=0.0),
    ):
        assert np.isnan(broken).all()
    assert np.isfinite(ratio([np.inf, np.inf, 1.0, 2.0])[0])  # half is enough for the lower end
