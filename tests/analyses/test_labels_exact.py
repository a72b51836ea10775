"""Specialization by label on a planted table: values, chance, intervals within labels and p values, each computed again."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from recounted import spread

from moescope import statistics as st
from moescope.analyses._shared.arrays.document_counts import Table
from moescope.analyses.specialization import labels

EXPERTS, LABELS, DRAWS = 3, ["a", "b"], 1999
HOME = np.array([0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0])  # seven documents of a, five of b
RNG = np.random.default_rng(4)
COUNTS = RNG.integers(0, 9, (12, EXPERTS)) + np.array([[6, 0, 0], [0, 4, 0]])[HOME]
TOKENS = COUNTS.sum(1) // 2 + RNG.integers(1, 4, 12)  # decisions: two experts each, some of which were dropped


@pytest.fixture(scope="module")
def found() -> tuple[pd.DataFrame, pd.DataFrame]:
    counts = np.zeros((12, 2, EXPERTS))
    counts[np.arange(12), HOME] = COUNTS
    table = Table(pd.Series({"stack": "decoder", "layer": 3, "router": 7, "top_k": 2}), LABELS, counts)
    special, share = ([st.Pool() for _ in LABELS] for _ in range(2))
    made = labels.by_label(table, TOKENS.astype(float), "domain", special, share)
    figures = [made.special.tested(), made.share.tested(), *made.whole]
    return pd.concat(figures, ignore_index=True), labels.lifted(figures[1], made.overall)


def totals(weights: np.ndarray, home: np.ndarray = HOME) -> tuple[np.ndarray, np.ndarray]:
    """(labels, experts) assignments and (labels,) tokens of documents that count so often."""
    sums = np.array([[(weights * (home == label) * COUNTS[:, e]).sum() for e in range(EXPERTS)] for label in range(2)])
    return sums, np.array([(weights * (home == label) * TOKENS).sum() for label in range(2)])


BOOT = [totals(w) for w in st.bootstrap_weights(12, strata=HOME)]
DEALT = np.random.default_rng(0).permuted(np.tile(HOME, (DRAWS, 1)), axis=1)
NULL = [totals(np.ones(12), home) for home in DEALT]
VALUE, N = totals(np.ones(12))


def studentized(home: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(labels, experts): share of a label's documents less that of the others, over its error; document by document."""
    found = np.zeros((2, EXPERTS))
    for e in range(EXPERTS):
        x, overall = COUNTS[:, e], COUNTS[:, e].sum() / size.sum()
        rates, errors = [], []
        for label in range(2):
            mine = home == label
            n, m = size[mine].sum(), mine.sum()
            rate = x[mine].sum() / n
            spread = sum((x[u] - rate * size[u]) ** 2 for u in np.flatnonzero(mine)) / n**2 * m / (m - 1)
            rates.append(rate)
            multiple = np.mean([excess(c, mine, size) for c in range(EXPERTS)])
            spread = ((m - 1) * spread + 20 * multiple * overall * (1 - overall) / n) / (m + 19)
            errors.append(max(spread, overall * (1 - overall) / n / 4))
        found[0, e] = (rates[0] - rates[1]) / np.sqrt(sum(errors))
        found[1, e] = -found[0, e]
    return found


def excess(e: int, mine: np.ndarray, size: np.ndarray) -> float:
    """Variance of an expert's share over documents, in binomial ones."""
    x, overall, n, m = COUNTS[:, e], COUNTS[:, e].sum() / size.sum(), size[mine].sum(), mine.sum()
    spread = (((x - x[mine].sum() / n * size)[mine]) ** 2).sum() / n**2 * m / (m - 1)
    return float(spread / (overall * (1 - overall) / n))


SIZES = {"domain specialization": TOKENS, "share of load by label": COUNTS.sum(1)}
OWN = {name: studentized(HOME, size) for name, size in SIZES.items()}
MIXED = {name: np.array([studentized(home, size) for home in DEALT]) for name, size in SIZES.items()}


def p_cell(name: str, label: int, e: int) -> float:
    """Among the permuted values of all of the label's experts."""
    null = np.abs(MIXED[name][:, label]).ravel()
    return (1 + (null >= abs(OWN[name][label, e])).sum()) / (1 + null.size)


def p_table() -> float:
    value, null = ((x**2).sum((-2, -1)) for x in (OWN["share of load by label"], MIXED["share of load by label"]))
    return float(st.curve_tail(value, null))


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
        assert (row.ci_low, row.ci_high) == pytest.approx((np.clip(low, 0, 1), max(np.clip(high, 0, 1), value)), rel=1e-5)
        assert row.null_mean == pytest.approx(null[:, label, e].mean(), rel=1e-5)
        counted = p_cell(name, label, e)
        few = counted * (1 + DRAWS * EXPERTS) < 11  # a tail is fitted there
        assert row.p <= counted * 1.02 if few else row.p == pytest.approx(counted, rel=0.02)


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


def noise(home: np.ndarray) -> float:
    """What documents' own spread adds to the information of their labels, to second order; document by document."""
    size, found = COUNTS.sum(1), 0.0
    overall = COUNTS.sum(0) / size.sum()
    for label in range(2):
        mine = np.flatnonzero(home == label)
        n = size[mine].sum()
        found += (1 - n / size.sum()) / n * sum(((COUNTS[u] - overall * size[u]) ** 2 / overall).sum() for u in mine)
    return float(found)


FAIR = noise(HOME) / np.array([noise(home) for home in DEALT])


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
        fair = FAIR if measure is information else np.ones(len(null))
        assert row["null_mean"] == pytest.approx((null * fair).mean(), rel=1e-4), key
        assert row["p"] == pytest.approx(p_table(), rel=0.01), key
    bias = np.mean([information(sums) * fair for (sums, _), fair in zip(NULL, FAIR, strict=True)])
    assert figures.loc[("I(label; expert) (bits)", "less null mean"), "value"] == pytest.approx(
        information(VALUE) - bias, rel=1e-5
    )
    miller = information(VALUE) + (2 + 3 - 6 - 1) / (2 * VALUE.sum() * np.log(2))
    assert figures.loc[("I(label; expert) (bits)", "Miller-Madow"), "value"] == pytest.approx(miller, rel=1e-6)
