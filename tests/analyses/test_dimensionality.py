"""Participation ratio: by hand, by brute force, against known spectra; streaming sums; the analysis over stores."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import synthetic

from moescope import analyses
from moescope.analyses.dimensionality import participation_ratio
from moescope.errors import AnalysisError
from moescope.statistics.moments import Drawn, Moments, States, at_equal_n
from moescope.statistics.participation import Grouped, from_sums, spread, sums
from moescope.store import open_store
from moescope.store.write.change import change_store


def brute(states: np.ndarray, groups: np.ndarray) -> float:
    """The ratio of the two averages over four states of four different sequences, one after another."""
    rows = {g: np.flatnonzero(groups == g) for g in np.unique(groups)}
    tops, bottoms = [], []
    for quadruple in permutations(rows, 4):
        picks = [states[rows[g]] for g in quadruple]
        top = bottom = count = 0.0
        for a in picks[0]:
            for b in picks[1]:
                for c in picks[2]:
                    for d in picks[3]:
                        top += ((a - b) @ (a - b)) * ((c - d) @ (c - d)) / 4
                        bottom += ((a - b) @ (c - d)) ** 2 / 4
                        count += 1
        tops.append(top / count)
        bottoms.append(bottom / count)
    return float(np.mean(tops) / np.mean(bottoms))


def test_naive_by_hand() -> None:
    """Variances 8/3 and 2/3: (10/3)² / (64/9 + 4/9) = 100/68."""
    states = np.array([[2.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-2.0, -1.0]]) + 5
    assert participation_ratio(states, "naive") == pytest.approx(100 / 68, abs=1e-12)


def test_unbiased_by_hand() -> None:
    """The corners of a square: Σ|x|² = 8, Σ|x|⁴ = 16, ‖scatter‖² = 32: (48/12 + 2·32/24 + 32/24) / (16/12 − 0 + 32/24) = 3."""
    square = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    assert sums(square) == (4, 8.0, 16.0, 32.0)
    assert participation_ratio(square, "unbiased") == pytest.approx(3.0, abs=1e-12)
    assert brute(square, np.arange(4)) == pytest.approx(3.0, abs=1e-12)


@pytest.mark.parametrize("sizes", [(1,) * 6, (2, 1, 3, 1, 2)])
def test_unbiased_against_brute_force(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(sizes))
    groups = np.repeat(np.arange(len(sizes)), sizes) * 7
    states = rng.normal(size=(len(groups), 4)) * [3, 1, 1, 0.5] + rng.normal(size=4)
    expected = brute(states, groups)
    assert participation_ratio(states, "unbiased", groups=groups) == pytest.approx(expected, rel=1e-9)
    if max(sizes) == 1:
        assert participation_ratio(states, "unbiased") == pytest.approx(expected, rel=1e-9)


def test_weights_are_copies_that_never_meet() -> None:
    """Weight 0 is absence; weights of 2 for all are the same as 1 but for pairs of copies, which are left out."""
    states, groups = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8)
    grouped = Grouped(states, groups)
    without = grouped.ratio(np.array([1, 1, 1, 1, 1, 1, 1, 0]))
    assert without[0] == pytest.approx(participation_ratio(states[:7], "unbiased"), rel=1e-9)
    assert grouped.ratio(np.full(8, 2.0))[0] == pytest.approx(grouped.ratio()[0], rel=1e-9)


def test_isotropic() -> None:
    """The requirement: 512 ± 5 % from 100 samples, where the naive value is 84."""
    states = np.random.default_rng(0).normal(size=(100, 512))
    assert participation_ratio(states, "unbiased") == pytest.approx(512, rel=0.05)
    assert participation_ratio(states, "naive") == pytest.approx(84, abs=2)


def test_known_spectrum_and_sequences() -> None:
    """Tokens of one sequence move together: as if independent they mislead, by sequence they do not."""
    rng, spectrum = np.random.default_rng(1), 1 / np.arange(1, 60)
    truth = spectrum.sum() ** 2 / (spectrum**2).sum()
    alone, grouped = [], []
    for _ in range(40):
        shared = np.repeat(rng.normal(size=(30, 59)), 8, axis=0)
        states = (0.8**0.5 * shared + 0.2**0.5 * rng.normal(size=shared.shape)) * np.sqrt(spectrum)
        alone.append(participation_ratio(states, "unbiased"))
        grouped.append(participation_ratio(states, "unbiased", groups=np.repeat(np.arange(30), 8)))
    assert np.mean(alone) < 0.85 * truth
    assert np.mean(grouped) == pytest.approx(truth, rel=0.1)


@pytest.mark.slow
def test_interval_covers_the_truth() -> None:
    rng, truth, hits = np.random.default_rng(2), 20.0, 0
    for _ in range(150):
        states = rng.normal(size=(40, 20)) * np.sqrt(rng.gamma(4, 0.25, size=(40, 1)))
        value, low, high = spread(Grouped(states, np.arange(40)), draws=200)
        assert low <= value <= high
        hits += low <= truth <= high
    assert hits / 150 >= 0.9


def test_moments_are_exact_and_merge() -> None:
    rng = np.random.default_rng(3)
    states = rng.normal(size=(300, 9)) * rng.gamma(1, 1, 9) + 1e3
    whole, left, right = Moments(), Moments(), Moments()
    for batch in np.array_split(states, 7):
        whole.update(batch)
    left.update(states[:120])
    right.update(states[120:])
    left.merge(right)
    for moments in (whole, left):
        np.testing.assert_allclose(moments.covariance, np.cov(states.T), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(moments.mean, states.mean(0), rtol=1e-12)
        assert moments.participation_ratio("naive") == pytest.approx(participation_ratio(states, "naive"), rel=1e-7)
        assert moments.participation_ratio("unbiased") == pytest.approx(participation_ratio(states, "unbiased"), rel=1e-7)


def test_moments_of_nothing() -> None:
    empty = Moments()
    empty.update(np.zeros((0, 3)))
    empty.merge(Moments())
    assert np.isnan(empty.participation_ratio())
    assert np.isnan(from_sums(4, 0.0, 0.0, 0.0))


def test_drawn_is_bounded_and_does_not_depend_on_the_order() -> None:
    states, groups = np.arange(400.0)[:, None], np.repeat(np.arange(100), 4)
    one, two, other = Drawn(groups=10, per_group=2), Drawn(groups=10, per_group=2), Drawn(groups=10, per_group=2)
    one.update(states, groups)
    for part in np.array_split(np.random.default_rng(0).permutation(400), 5):
        two.update(states[part], groups[part])
    other.update(states[:200], groups[:200])
    rest = Drawn(groups=10, per_group=2)
    rest.update(states[200:], groups[200:])
    other.merge(rest)
    for drawn in (one, two, other):
        assert sorted(set(drawn.groups)) == sorted(set(one.groups))
        assert drawn.states.shape == (20, 1)
        assert drawn.capped
        np.testing.assert_array_equal(drawn.states[:, 0] // 4, drawn.groups)


def test_states_give_rows_for_measures() -> None:
    rng = np.random.default_rng(4)
    streams = {"a": States(groups=64), "b": States(groups=64, covariance=False)}
    for start in range(0, 80, 8):
        groups = np.repeat(np.arange(start, start + 8), 5)
        for number, stream in enumerate(streams.values(), start=1):
            stream.update(rng.normal(size=(40, 16)) * np.where(np.arange(16) < 8 * number, 1, 0), groups)
    rows = streams["a"].measures(run=0, layer=3, subset="residual")
    assert [(r["estimator"], r["n"], r["units"]) for r in rows] == [("naive", 400, 64), ("unbiased", 128, 64)]
    assert rows[1]["value"] == pytest.approx(8, rel=0.1)
    assert rows[1]["ci_low"] < 8 < rows[1]["ci_high"]
    assert streams["b"].measures()[1]["value"] == pytest.approx(16, rel=0.1)
    equal = at_equal_n(streams)
    assert equal["a"] < 8 < equal["b"] < 16
    assert States().measures() == []


@pytest.mark.parametrize(
    ("states", "estimator", "words"),
    [
        (np.zeros((3, 2)), "unbiased", "4 independent samples"),
        (np.zeros(5), "naive", "shape"),
        (np.full((5, 2), np.nan), "naive", "NaN"),
        (np.zeros((5, 2)), "naive", "do not vary"),
        (np.zeros((5, 2)), "best", "naive, unbiased"),
    ],
)
def test_refusals(states: np.ndarray, estimator: str, words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        participation_ratio(states, estimator)


def test_streams_too_few_in_common() -> None:
    with pytest.raises(AnalysisError, match="at least 4"):
        at_equal_n({"a": States(), "b": States()})


def test_over_a_store(tmp_path: Path) -> None:
    """Independent layers fill the routing matrix; one planted axis through all layers takes dimensions away."""
    path = tmp_path / "x.duckdb"
    synthetic.make(path, logits=True, tokens=16)
    synthetic.make(path, synthetic.specialist("law", strength=6.0), logits=True, tokens=16, seed=1)
    free = analyses.run("dimensionality", path, 0)
    bound = analyses.run("dimensionality", path, 1, control=0)
    where = {"name": "participation_ratio", "estimator": "unbiased", "subset": "routing matrix"}
    row, planted = free.figures(**where).iloc[0], bound.figures(**where).iloc[0]
    assert row["p"] > 0.01
    assert row["chance"] == 24
    assert planted["p"] < 1e-4
    assert planted["p_from"] == "count of 99 draws, Pearson III beyond"
    assert planted["ci_high"] < row["value"]
    control = bound.figures(name="participation_ratio", estimator="unbiased", subset="routing matrix, control run 0").iloc[0]
    assert control["value"] == row["value"]
    logits = free.figures("participation_ratio", estimator="unbiased", subset="router logits")
    assert len(logits) == 3
    assert ((logits["ci_low"] < 8) & (logits["value"] > 6)).all()
    index = free.figures("hierarchy_index", subset="router logits, last over first 1 router").iloc[0]
    assert index["ci_low"] < 1 < index["ci_high"]
    assert set(bound.charts()) == {"participation ratio by layer"}


def test_logits_of_a_router_by_hand(tmp_path: Path) -> None:
    """All tokens of a short store are drawn: the figure is the function's, over the rows of `logits`."""
    path = tmp_path / "x.duckdb"
    synthetic.make(path, logits=True, documents=12, tokens=4)
    with open_store(path) as store:
        answer = analyses.run("dimensionality", store)
        rows = store.rows("select logits, sequence // 2 from logits join tokens using (token) where router = 1 order by token")
    states, units = np.array([r[0] for r in rows], dtype=float), np.array([r[1] for r in rows])
    found = answer.figures("participation_ratio", subset="router logits", router=1).set_index("estimator")["value"]
    assert found["naive"] == pytest.approx(participation_ratio(states, "naive"), abs=1e-9)
    assert found["unbiased"] == pytest.approx(participation_ratio(states, "unbiased", groups=units), abs=1e-9)


def test_too_few_documents_and_no_logits(tmp_path: Path) -> None:
    synthetic.make(tmp_path / "x.duckdb", documents=3)
    with pytest.raises(AnalysisError, match=r"3 documents in the decoder.*Router logits were not stored"):
        analyses.run("dimensionality", tmp_path / "x.duckdb")


def test_captured_states_are_shown(tmp_path: Path) -> None:
    """Rows that a trace put into `measures` come along, with their interval."""
    path = tmp_path / "x.duckdb"
    synthetic.make(path)
    row = "0, 1, 2, null, 'participation_ratio', 'unbiased', 'residual', null, 12.5, 11, 14, null, null, 300, 24, null"
    change_store(path, lambda con: con.execute(f"insert into measures values ({row})"))
    found = analyses.run("dimensionality", path).figures("participation_ratio", subset="residual").iloc[0]
    assert (found["value"], found["ci_low"], found["layer"], found["stack"], found["units"]) == (12.5, 11, 2, "decoder", 24)
