"""Specialization by label on a planted table: values, chance, intervals within labels and p values, each computed again."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from recounted import spread

from moescope import statistics as st
from moescope.analyses._shared.document_counts import Table
from moescope.analyses.specialization import labels

EXPERTS, LABELS, DRAWS = 3, ["a", "b"], 500
HOME = np.array([0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0])  # seven documents of a, five of b
RNG = np.random.default_rng(4)
COUNTS = RNG.integers(0, 9, (12, EXPERTS)) + np.array([[6, 0, 0], [0, 4, 0]])[HOME]
TOKENS = COUNTS.sum(1) // 2 + RNG.integers(1, 4, 12)  # decisions: two experts each, some of which were dropped


@pytest.fixture(scope="module")
def found() -> tuple[pd.DataFrame, pd.DataFrame]:
    counts = np.zeros((12, 2, EXPERTS))
    counts[np.arange(12), HOME] = COUNTS
    table = Table(pd.Series({"stack": "decoder", "layer": 3, "router": 7, "top_k": 2}), LABELS, counts)
    figures, cells = labels.by_label(table, TOKENS.astype(float), "domain", DRAWS)
    return pd.concat(figures, ignore_index=True), cells


def totals(weights: np.ndarray, home: np.ndarray = HOME) -> tuple[np.ndarray, np.ndarray]:
    """(labels, experts) assignments and (labels,) tokens of documents that count so often."""
    sums = np.array([[(weights * (home == label) * COUNTS[:, e]).sum() for e in range(EXPERTS)] for label in range(2)])
    return sums, np.array([(weights * (home == label) * TOKENS).sum() for label in range(2)])


BOOT = [totals(w) for w in st.bootstrap_weights(12, strata=HOME)]
NULL = [totals(np.ones(12), home) for home in st.permuted(HOME, DRAWS)]
VALUE, N = totals(np.ones(12))


def p_both(value: float, null: list[float]) -> float:
    above, below = (1 + sum(x >= value - 1e-9 for x in null)) / 501, (1 + sum(x <= value + 1e-9 for x in null)) / 501
    return min(2 * min(above, below), 1.0)


def share(sums: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.asarray(sums / sums.sum(1, keepdims=True))


def special(sums: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.asarray(sums / n[:, None])


@pytest.mark.parametrize(("name", "measure"), [("domain specialization", special), ("share of load by label", share)])
def test_cells(found: Any, name: str, measure: Any) -> None:
    figures = found[0][found[0]["name"] == name].reset_index()
    assert len(figures) == 6
    boot, null = (np.array([measure(*x) for x in some]) for some in (BOOT, NULL))
    for row in figures.itertuples():
        label, e = divmod(row.Index, EXPERTS)
        value = measure(VALUE, N)[label, e]
        chance = VALUE.sum() / N.sum() / EXPERTS if measure is special else VALUE[:, e].sum() / VALUE.sum()
        low, high = spread(value, boot[:, label, e], (7, 5)[label])
        assert (row.subset, row.expert, row.n, row.units) == (f"domain={LABELS[label]}", e, N[label], (7, 5)[label])
        assert (row.value, row.chance) == pytest.approx((value, chance), rel=1e-6)
        assert (row.ci_low, row.ci_high) == pytest.approx((np.clip(low, 0, 1), np.clip(high, 0, 1)), rel=1e-5)
        assert row.null_mean == pytest.approx(null[:, label, e].mean(), rel=1e-5)
        assert row.p == pytest.approx(p_both(value, null[:, label, e].tolist()))


def test_lift_and_pointwise_information(found: Any) -> None:
    overall, mine = VALUE.sum(0) / VALUE.sum(), share(VALUE, N)
    cells = found[1]
    assert cells["overall"].tolist() == pytest.approx([*overall, *overall])
    assert cells["lift"].tolist() == pytest.approx((mine / overall).ravel().tolist())
    assert cells["pmi"].tolist() == pytest.approx(np.log2(mine / overall).ravel().tolist())


def information(sums: np.ndarray) -> float:
    joint = sums / sums.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    return float((joint[joint > 0] * np.log2(joint[joint > 0] / apart[joint > 0])).sum())


def divergence(sums: np.ndarray) -> float:
    p = sums / sums.sum(1, keepdims=True)
    return information(p)  # of two labels of equal weight


def test_information_and_divergence(found: Any) -> None:
    """Of the whole table, with its interval over all twelve documents and the share of dealt labels that say as much."""
    figures = found[0].set_index(["name", "estimator"])
    kinds = {
        ("I(label; expert) (bits)", "plug-in"): information,
        ("JSD (bits)", "pair"): divergence,
        ("JSD (bits)", "mean over pairs"): divergence,
        ("Jensen-Shannon distance", "mean over pairs"): lambda sums: np.sqrt(divergence(sums)),
    }
    for key, measure in kinds.items():
        row, value = figures.loc[key], measure(VALUE)
        boot, null = (np.array([measure(sums) for sums, _ in some]) for some in (BOOT, NULL))
        low, high = spread(value, boot, 12)
        assert (row["value"], row["units"], row["chance"], row["n"]) == pytest.approx((value, 12, 0, N.sum()), rel=1e-6), key
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((max(low, 0), high), rel=1e-4, abs=1e-6), key
        assert row["p"] == pytest.approx((1 + (null >= value - 1e-9).sum()) / 501), key
    bias = np.mean([information(sums) for sums, _ in NULL])
    assert figures.loc[("I(label; expert) (bits)", "less null mean"), "value"] == pytest.approx(
        information(VALUE) - bias, rel=1e-5
    )
    miller = information(VALUE) + (2 + 3 - 6 - 1) / (2 * VALUE.sum() * np.log(2))
    assert figures.loc[("I(label; expert) (bits)", "Miller-Madow"), "value"] == pytest.approx(miller, rel=1e-6)
