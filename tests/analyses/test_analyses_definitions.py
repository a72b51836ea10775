"""Definitions over token-level decisions: hand-worked, and against slow second implementations."""

from itertools import pairwise

import numpy as np
import pytest

from moescope import statistics
from moescope.analyses._shared.arrays import decision_sample
from moescope.analyses.diff import changes
from moescope.analyses.load import balancing_losses
from moescope.analyses.specialization import attributes, vocabulary
from moescope.analyses.structure import coactivation, consistency, flow, repetition

EXACT = {"rel": 1e-9, "abs": 1e-9}


def random_chosen(n=200, experts=7, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, experts)).argsort(1)[:, :k].astype(np.int16)


def test_balancing_losses_by_hand():
    first, probability = np.array([0.75, 0.25]), np.array([0.6, 0.4])
    assert balancing_losses.switch_loss(first, probability) == pytest.approx(2 * (0.45 + 0.1), **EXACT)
    assert balancing_losses.switch_loss(np.full(4, 0.25), np.full(4, 0.25)) == pytest.approx(1, **EXACT)
    assert balancing_losses.switch_loss(np.full(4, 0.5), np.full(4, 0.25)) == pytest.approx(2, **EXACT)  # Transformers' form: k


def test_chance_of_meeting_is_the_published_one():
    """46.4 % for Mixtral's 8 and 2; 67.9, 41.2, 22.7 and 43.1 % for (64, 8), (128, 8), (256, 8), (32, 4)."""
    found = [repetition.chance_of_meeting(e, k) for e, k in ((8, 2), (64, 8), (128, 8), (256, 8), (32, 4))]
    assert [round(100 * x, 1) for x in found] == [46.4, 67.9, 41.2, 22.7, 43.1]


@pytest.mark.parametrize("experts", [7, 64, 130])
def test_repeats_agree_with_sets(experts):
    chosen = random_chosen(experts=experts)
    chosen[3, 1] = chosen[9] = -1  # none is no expert
    a, b = np.arange(199), np.arange(1, 200)
    first, meet = repetition.Repeats(chosen, experts)(a, b).astype(bool).tolist()
    sets = [set(row) - {-1} for row in chosen.tolist()]
    assert meet == [bool(x & y) for x, y in pairwise(sets)]
    assert first == [x[0] == y[0] and x[0] >= 0 for x, y in pairwise(chosen)]


@pytest.mark.parametrize("m", [1, 2, 5, 16])
def test_segments_agree_with_a_slow_count(m, monkeypatch):
    chosen, unit = random_chosen(), np.arange(200) % 3
    start = np.setdiff1d(np.arange(200 - m + 1), [7, 90])
    naive = np.zeros((3, 7, m + 1))
    for row in start:
        for expert in range(7):
            naive[unit[row], expert, (chosen[row : row + m] == expert).sum()] += 1
    for cells in (10**6, 300):  # in one part, and in several
        monkeypatch.setattr(consistency, "CELLS", cells)
        assert consistency.histograms(start, chosen, 7, m, unit).tolist() == naive.tolist()
        assert consistency.histograms(start, chosen, 7, m).tolist() == naive.sum(0, keepdims=True).tolist()


def test_coactivation_by_hand():
    chosen = np.array([[0, 1, 2], [1, 0, 3], [2, 1, -1]], dtype=np.int16)
    both = coactivation.together(chosen, 4)
    assert both.tolist() == [[0, 2, 1, 1], [2, 0, 2, 1], [1, 2, 0, 0], [1, 1, 0, 0]]
    code = coactivation.together(chosen, 4, neighbours=True)  # ranks 0-1 and 1-2 only
    assert code.tolist() == [[0, 2, 0, 1], [2, 0, 2, 0], [0, 2, 0, 0], [1, 0, 0, 0]]
    load = np.array([2, 3, 2, 1])
    assert coactivation.shares_of(both, load)[0].tolist() == [0, 1, 0.5, 0.5]


def test_released_coactivation_sees_a_quarter_of_the_pairs():
    chosen = random_chosen(experts=20, k=8)
    assert coactivation.together(chosen, 20, neighbours=True).sum() / coactivation.together(chosen, 20).sum() == pytest.approx(
        7 / 28
    )


def naive_srp(counts, m):
    """Best F1 over thresholds, straight from the sentence of the paper."""
    best = 0.0
    for least in range(1, m + 1):
        predicted = [f for f in counts if f >= least]
        true_positive = sum(predicted)
        f1 = 2 * true_positive / (m * len(predicted) + sum(counts)) if predicted else 0
        best = max(best, f1)
    return best


@pytest.mark.parametrize("seed", range(4))
def test_srp_agrees_with_its_definition(seed):
    counts = np.random.default_rng(seed).integers(0, 5, 60)
    histogram = np.bincount(counts, minlength=5)
    assert consistency.srp(histogram)[0] == pytest.approx(naive_srp(counts.tolist(), 4), **EXACT)


def test_srp_of_all_or_nothing_segments_is_one():
    score, size = consistency.srp(np.array([10, 0, 0, 0, 5]))
    assert (score, size) == (pytest.approx(1), pytest.approx(1))


def naive_cache(sequence, sets, size, m):
    hits = asked = 0
    for s in sorted(set(sequence)):
        mine = [x for x, q in zip(sets, sequence) if q == s]
        cache = set()
        for t, need in enumerate(mine):
            hits += len(cache & need)
            asked += len(need)
            soon = [e for later in mine[t + 1 : t + 1 + m] for e in later]
            spare = sorted(cache - need, key=lambda e: (-soon.count(e), e))
            cache = need | set(spare[: max(0, size - len(need))])
    return hits, asked


@pytest.mark.parametrize("seed", range(3))
def test_cache_agrees_with_a_slow_one(seed):
    chosen = random_chosen(seed=seed, experts=9)
    sequence = np.repeat([4, 7, 9], [80, 1, 119])
    found = consistency.cache_hits(sequence, decision_sample.one_hot(chosen, 9), 5, 6).sum(0)
    assert tuple(found) == naive_cache(sequence.tolist(), [set(row) for row in chosen.tolist()], 5, 6)


def test_changes_by_hand():
    a = np.array([[0, 1], [0, 1], [0, 1], [0, 1]], dtype=np.int16)
    b = np.array([[0, 1], [1, 0], [0, 2], [2, 3]], dtype=np.int16)
    found = {name: value.tolist() for name, value in changes.changes(a, b, 4).items()}
    assert found == {
        "set changed": [False, False, True, True],
        "order changed": [False, True, False, False],
        "first choice changed": [False, True, False, True],
        "router saturation": [1, 1, 0.5, 0],
    }


def test_vocabulary_specialization_by_hand():
    table, counts = np.array([[3.0, 1.0], [0.0, 2.0], [0.0, 0.0]]), np.array([4, 2, 0])
    assert vocabulary.largest(table, counts) == pytest.approx((0.75 + 1) / 2, **EXACT)


def test_expected_paths():
    assert flow._expected(8.0, 1) == pytest.approx(1)
    assert flow._expected(4.0, 2) == pytest.approx(1 + 3 / 4)
    rng = np.random.default_rng(0)
    seen = [len(set(rng.integers(0, 50, 60))) for _ in range(2000)]
    assert flow._expected(50.0, 60) == pytest.approx(np.mean(seen), rel=0.01)


def test_shuffles_stay_in_their_document():
    unit = np.array([0, 1, 0, 1, 1, 0])
    for order in decision_sample.shuffles(unit, 20):
        assert sorted(order) == list(range(6))
        assert (unit[order] == unit).all()


def test_shuffled_attributes_stay_in_their_document():
    """Documents whose tokens lie apart, and tokens without the attribute in between."""
    rng = np.random.default_rng(0)
    unit, code = rng.integers(0, 5, 60), rng.integers(-1, 9, 60)
    mine = code >= 0
    for order in decision_sample.shuffles(unit, 5):
        moved = attributes.shuffled(code[mine], mine, unit, order)
        assert (moved != code[mine]).any()
        for u in range(5):
            assert sorted(moved[unit[mine] == u]) == sorted(code[mine][unit[mine] == u])


@pytest.mark.parametrize("ranks", [None, 1])
def test_redrawn_documents_agree_with_whole_tables(ranks):
    rng = np.random.default_rng(1)
    chosen, unit, codes = random_chosen(n=400), rng.integers(0, 6, 400), vocabulary.Codes(rng.zipf(1.6, 400) % 40)
    chosen[5, 0] = -1
    largest, bits = vocabulary.redrawn(vocabulary.Routed(codes, unit, chosen, 7, 6), ranks, draws=8)
    for number, weights in enumerate(statistics.bootstrap_weights(6, 8)):
        table, count = np.zeros((len(codes.values), 7)), np.zeros(len(codes.values))
        for value, row, u in zip(codes.index, chosen[:, :ranks].tolist(), unit):
            count[value] += weights[u]
            for expert in set(row) - {-1}:
                table[value, expert] += weights[u]
        often = codes.frequent
        assert largest[number, 0] == pytest.approx(vocabulary.largest(table[often], count[often]), rel=1e-6)
        assert bits[number, 0] == pytest.approx(statistics.mutual_information(table[often]), rel=1e-9)
