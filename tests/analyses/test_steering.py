"""Risk differences between two sets of texts, and Monet's two-fold rule: found where planted, not where chance decides."""

import numpy as np
import pandas as pd
import pytest
import synthetic

import moescope
from moescope import analyses
from moescope import statistics as st
from moescope.analyses import steering
from moescope.analyses._shared.arrays.document_counts import Table
from moescope.errors import AnalysisError


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steering")
    for name, planted in {"code": [synthetic.specialist("code", 5)], "tilt": [synthetic.tilt(2.0)]}.items():
        synthetic.make(folder / f"{name}.duckdb", *planted, documents=12, tokens=30)
    return folder


def test_the_planted_expert_is_foremost_and_doubled(stores):
    answer = analyses.run("steering", stores / "code.duckdb", first="code", second="news")
    risks = answer.figures(steering.RISK)
    top = risks.loc[risks.groupby("layer")["value"].idxmax()]
    assert top["expert"].tolist() == [5, 5, 5]
    assert (top["q"] <= 0.05).all()
    assert ((top["ci_low"] <= top["value"]) & (top["value"] <= top["ci_high"])).all()
    rule = answer.figures(steering.TWICE)
    assert rule["value"].tolist() == [1, 1, 1]
    assert (rule["q"] <= 0.05).all()
    found = answer.frames["two-fold"]
    assert found[["expert", "domain"]].to_numpy().tolist() == [[5, "code"]] * 3
    assert "foremost expert 5" in answer.reading


def test_the_figures_are_what_sql_counts(stores):
    with moescope.open(stores / "code.duckdb") as store:
        risks = analyses.run("steering", store, first="code", second="law").figures(steering.RISK)
        rows = store.rows(
            "select router, expert, count(*) filter (domain = 'code') / (select count(*) from tokens join sequences "
            "using (sequence) where domain = 'code') - count(*) filter (domain = 'law') / (select count(*) from tokens join "
            "sequences using (sequence) where domain = 'law') from assignments join tokens using (token) join sequences "
            "using (sequence) group by all order by all"
        )
    assert risks.set_index(["router", "expert"])["value"].to_dict() == pytest.approx({(r, e): v for r, e, v in rows})


def test_an_uneven_router_without_structure_has_no_finding(stores):
    answer = analyses.run("steering", stores / "tilt.duckdb")
    assert not (answer.frames["figures"]["q"] <= 0.05).any()
    assert answer.reading.startswith("No expert runs oftener in one set than documents vary by")


def world(rng: np.random.Generator, lengths: list[int], home: list[int], experts: int) -> tuple[Table, np.ndarray]:
    shares = np.exp(np.arange(experts) / experts)
    counts, looked = np.zeros((len(lengths), 2, experts)), np.zeros((len(lengths), 2))
    for unit, (n, h) in enumerate(zip(lengths, home)):
        counts[unit, h], looked[unit, h] = rng.multinomial(2 * n, shares / shares.sum()), n
    router = pd.Series({"stack": "decoder", "layer": 0, "router": 0, "top_k": 2, "experts": experts})
    return Table(router, ["0", "1"], counts), looked


@pytest.mark.parametrize(("lengths", "home"), [
    ([200] * 24, [0, 1] * 12), ([30] * 20 + [600] * 20, [0] * 20 + [1] * 20), ([80] * 120, [0] * 110 + [1] * 10),
], ids=["equal", "short against long", "many against few"])  # fmt: skip
def test_sets_that_differ_only_in_size_do_not_differ(lengths, home):
    rng, found = np.random.default_rng(0), []
    for _ in range(24):
        table, looked = world(rng, lengths, home, 32)
        p = steering._risks(table, "set", looked, 0, 1)["p"].to_numpy(float)
        found.append(bool((st.fdr(p) <= 0.05).any()))
    assert sum(found) <= 4  # of 24: five in a hundred, in 99.4 % of tries


@pytest.mark.parametrize(("documents", "lengths", "experts"), [
    ((1, 20, 20), (60, 60, 60), 8), ((12,) * 4, (12, 120, 120, 120), 256), ((12,) * 4, (60,) * 4, 16),
], ids=["a domain of one document", "a few tokens for 256 experts", "equal"])  # fmt: skip
def test_chance_doubles_as_many_shares_as_the_null_says(documents, lengths, experts):
    """A null in which a domain's cells vary as they happened to found too many in 1 of 4 worlds, and in all."""
    home, found, off = np.repeat(np.arange(len(documents)), documents), 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counts = np.stack([rng.multinomial(lengths[g], rng.dirichlet(np.full(experts, 6.0))) for g in home])
        seen = np.stack([counts[home == g].sum(0) for g in range(len(documents))])
        value, null = (steering._twice(st.shares(x))[0].sum(-1)
                       for x in (seen, st.common_draws(counts, home, len(documents), 99, seed)))  # fmt: skip
        found, off = found + int(st.p_value(value, null) <= 0.05), [*off, value - null.mean()]
    assert found <= 3
    assert abs(np.mean(off)) <= 3 * np.std(off) / np.sqrt(20)


def test_refusals(stores, tmp_path):
    with pytest.raises(AnalysisError, match="there are: code, law, news"):
        analyses.run("steering", stores / "tilt.duckdb", first="poems")
    synthetic.make(tmp_path / "few.duckdb", documents=3, tokens=10)
    with pytest.raises(AnalysisError, match="two documents or more"):
        analyses.run("steering", tmp_path / "few.duckdb")
