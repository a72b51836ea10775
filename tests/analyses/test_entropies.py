"""Local and global entropy, importance and dropped share against tables worked by hand."""

import numpy as np
import pandas as pd
import pytest

from moescope.analyses._shared import modality_entropies

EXACT = {"abs": 1e-9}
ROUTER = pd.Series({"stack": "decoder", "layer": 1, "router": 0, "experts": 2})


def test_global_entropy_of_two_sure_documents_is_ln_2():
    """Each document is sure of one expert (local 0), both experts are used alike (global ln 2)."""
    sums, n = np.array([[4.0, 0.0], [0.0, 4.0]]), np.array([4.0, 4.0])
    row = modality_entropies.global_(ROUTER, "text", sums, n).iloc[0]
    assert row["value"] == pytest.approx(np.log(2), **EXACT)
    assert (row["chance"], row["n"], row["units"], row["subset"]) == (pytest.approx(np.log(2)), 8, 2, "modality=text")


def test_global_entropy_by_hand():
    """Mean probabilities 3/4 and 1/4; a document of another modality (no tokens) does not count."""
    sums, n = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]), np.array([2.0, 2.0, 0.0])
    row = modality_entropies.global_(ROUTER, "patch", sums, n).iloc[0]
    assert row["value"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), **EXACT)
    assert row["units"] == 2


def test_importance_by_hand():
    """Sums 3 and 1: mean 2, sd 1, CV^2 1/4."""
    sums, n = np.array([[1.0, 1.0], [2.0, 0.0]]), np.array([2.0, 2.0])
    row = modality_entropies.importance(ROUTER, "all probabilities", sums, n).iloc[0]
    assert (row["value"], row["estimator"], row["chance"]) == (pytest.approx(0.25, **EXACT), "all probabilities", 0.0)


def test_entropies_of_a_store_are_those_of_its_logits(planted_store):
    """Against sums over the rows of `logits`, in NumPy."""
    from scipy.special import softmax

    from moescope import analyses
    from moescope.store import open_store

    with open_store(planted_store) as store:
        answer = analyses.run("load", store)
        router = int(answer.figures("global entropy (nats)")["router"].iloc[0])
        logits = np.stack([r[0] for r in store.rows(f"select logits from logits where router = {router} order by token")])
        weights = dict(store.rows(f"select expert, sum(weight) from assignments where router = {router} group by expert"))
    p = softmax(logits.astype(float), axis=1)
    mean = p.mean(0)
    wanted = {
        "global entropy (nats)": -(mean * np.log(mean)).sum(),
        "local entropy (nats)": -(p * np.log(p)).sum(1).mean(),
    }
    for name, value in wanted.items():
        assert answer.figures(name, router=router)["value"].iloc[0] == pytest.approx(value, rel=1e-5)
    gates = np.array([weights.get(e, 0.0) for e in range(p.shape[1])])
    for form, total in (("all probabilities", p.sum(0)), ("weights", gates)):
        value = answer.figures("importance CV^2", router=router, estimator=form)["value"].iloc[0]
        assert value == pytest.approx((total.std() / total.mean()) ** 2, rel=1e-4)


def test_dropped_share_has_an_interval(capacity_store):
    from moescope import analyses
    from moescope.store import open_store

    with open_store(capacity_store) as store:
        answer = analyses.run("load", store)
        lost, n = store.rows("select count(*) filter (dropped), count(*) from assignments where router = 0")[0]
    row = answer.figures("dropped share", router=0).iloc[0]
    assert row["value"] == pytest.approx(lost / n, **EXACT)
    assert 0 < row["ci_low"] < row["value"] < row["ci_high"] < 1
    assert row["n"] == n


@pytest.fixture(scope="module")
def planted_store(tmp_path_factory):
    from synthetic import make

    path = tmp_path_factory.mktemp("entropies") / "s.duckdb"
    make(path, documents=8, tokens=20, layers=(0,), logits=True)
    return path


@pytest.fixture(scope="module")
def capacity_store(tmp_path_factory):
    from synthetic import make, tilt

    path = tmp_path_factory.mktemp("entropies") / "c.duckdb"
    make(path, tilt(2.0), documents=8, tokens=20, layers=(0,), capacity=40)
    return path
