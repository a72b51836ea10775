"""Standing committees: by the released code's rule, found where planted, in no router that chooses by chance; phases."""

import numpy as np
import pandas as pd
import pytest
import synthetic

import moescope
from moescope import analyses
from moescope.analyses._shared.arrays.document_counts import Table
from moescope.analyses.committee import audit, phases
from moescope.errors import AnalysisError
from moescope.store.write.change import change_store


def rule(mass: np.ndarray, budget: int, presence: float) -> tuple[list[int], float]:
    """The rule as CommitteeAudit words it, expert by expert: who is in, and their share of the leading mass."""
    ranks: dict[int, list[int]] = {}
    weight: dict[int, float] = {}
    leading = 0.0
    for row in mass / mass.sum(1, keepdims=True):
        for rank, expert in enumerate(np.argsort(-row, kind="stable")[:budget], start=1):
            ranks.setdefault(int(expert), []).append(rank)
            weight[int(expert)] = weight.get(int(expert), 0.0) + row[expert]
            leading += row[expert]
    least = np.ceil(len(mass) * presence)
    in_all = {e: r + [budget + 1] * (len(mass) - len(r)) for e, r in ranks.items() if len(r) >= least}
    if not in_all:
        most = max(len(r) for r in ranks.values())
        in_all = {e: r + [budget + 1] * (len(mass) - len(r)) for e, r in ranks.items() if len(r) == most}
    point = {e: (np.mean(r), np.var(r)) for e, r in in_all.items()}
    front = [e for e, a in point.items() if not any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in point.values())]
    return sorted(front), sum(weight[e] for e in front) / leading


@pytest.mark.parametrize("seed", range(40))
def test_members_and_coverage_are_those_of_the_rule(seed):
    rng = np.random.default_rng(seed)
    experts, domains = int(rng.integers(4, 20)), int(rng.integers(2, 7))
    mass = rng.gamma(rng.choice([0.2, 1.0, 5.0]), size=(domains, experts)) * np.linspace(1, rng.choice([1, 4]), experts)
    budget, presence = int(rng.integers(1, experts)), float(rng.choice([0.5, 0.8, 1.0]))
    chosen, mean, spread = audit.members(mass, budget, presence)
    expected, share = rule(mass, budget, presence)
    assert sorted(chosen.tolist()) == expected
    assert (np.diff(mean) >= 0).all()
    assert len(mean) == len(spread) == len(chosen)
    assert audit.coverage(mass, chosen, budget) == pytest.approx(share, abs=1e-12)


def test_leaders_and_jaccard_by_hand():
    mass = np.array([[6.0, 3, 1, 0], [5, 1, 4, 0]])
    assert audit.leaders(mass, 0.8).tolist() == [[True, True, False, False], [True, False, True, False]]
    assert audit.overlap(mass, 0.8) == pytest.approx(1 / 3)
    assert audit.leaders(mass, 0.6).tolist() == [[True, False, False, False], [True, False, True, False]]
    assert audit.by_chance(np.array([2.0, 2.0]), 4) == pytest.approx(1 / 3)  # one shared of three


@pytest.mark.parametrize(("plants", "standing"), [([synthetic.tilt(2.0)], 3), ([], 0)], ids=["tilted", "by chance"])
def test_a_committee_is_found_where_it_is(tmp_path, plants, standing):
    synthetic.make(tmp_path / "a.duckdb", *plants, seed=3, documents=12)
    answer = analyses.run("committee", tmp_path / "a.duckdb")
    cover = answer.figures("committee coverage", estimator="definition", subset="domain, budget 2")
    assert (cover["q"] <= 0.05).sum() == standing
    if standing:
        assert set(answer.frames["committees"]["experts"]) == {"7"}  # the heaviest in every domain
        inside = (cover["ci_low"] <= cover["value"]) & (cover["value"] <= cover["ci_high"])
        assert inside.all()
        assert "a committee stands; in decoder layer" in answer.reading
    else:
        assert answer.reading.startswith("No committee stands in any of 3 routers")


def world(rng: np.random.Generator, lengths: np.ndarray, home: np.ndarray, experts: int) -> Table:
    counts = np.zeros((len(lengths), home.max() + 1, experts))
    for unit, (n, h) in enumerate(zip(lengths, home)):
        counts[unit, h] = rng.multinomial(n, np.full(experts, 1 / experts))
    router = pd.Series({"stack": "decoder", "layer": 0, "router": 0, "top_k": 2, "experts": experts})
    return Table(router, [str(i) for i in range(home.max() + 1)], counts)


@pytest.mark.parametrize(("lengths", "home"), [
    (np.full(24, 200), np.arange(24) % 3), (np.array([20] * 10 + [600] * 30), np.array([0] * 10 + [1, 2] * 15)),
], ids=["equal", "short against long"])  # fmt: skip
def test_a_random_router_forms_none(lengths, home):
    rng, found = np.random.default_rng(0), []
    for _ in range(30):
        rows, _ = analyses.committee._of(world(rng, lengths, home, 16), "domain", 0.8, 0.8, [2])
        found.append(float(rows[0]["p"].iloc[0]) <= 0.05)
    assert sum(found) <= 5  # of 30: five in a hundred, in 99.6 % of tries


def test_a_prompt_that_tells_its_continuation_is_told_from_one_that_does_not():
    rng = np.random.default_rng(0)
    router = pd.Series({"stack": "decoder", "layer": 0, "router": 0, "top_k": 1, "experts": 8})
    own = rng.dirichlet(np.full(8, 0.3), 20)
    for tells in (True, False):
        shares = [own, own if tells else own[rng.permutation(20)]]
        counts = np.stack([[rng.multinomial(60, s) for s in side] for side in shares], 1)
        rows = phases._of(Table(router, ["continuation", "prompt"], counts.astype(float)), 0.8)
        assert all(bool(row["p"].iloc[0] <= 0.01) == tells for row in rows)
        assert [row["estimator"].iloc[0] for row in rows] == ["Jaccard at 80% of visits", "cosine of visits"]


def test_generated_tokens_are_the_continuation(tmp_path):
    """A store in which each document has an expert of its own: its prompt tells what it goes on with."""
    path = tmp_path / "a.duckdb"

    def own(read, layer, logits):
        logits[np.arange(len(logits)), read.document % 8] += 3.0

    synthetic.make(path, own, documents=8, tokens=20, layers=(0,))
    change_store(path, lambda con: con.execute("update tokens set generated = position >= 12"))
    rows = analyses.run("committee", path).figures("prompt and continuation")
    assert rows.set_index("estimator")["q"]["cosine of visits"] <= 0.05
    with moescope.open(path) as store:
        counted = store.rows(
            "select count(*) filter (not generated), count(*) from assignments join tokens using (token) where not dropped"
        )
    assert counted == [(8 * 2 * 12 * 2, 8 * 2 * 20 * 2)]
    assert rows["n"].tolist() == [counted[0][1]] * 2


def test_refusals(tmp_path):
    path = tmp_path / "a.duckdb"
    synthetic.make(path, documents=6, domains=("one",))
    with moescope.open(path) as store:
        with pytest.raises(AnalysisError, match="nothing that this question compares"):
            analyses.run("committee", store)
        with pytest.raises(AnalysisError, match="one domain only"):
            analyses.run("committee", store, by="domain")
    synthetic.make(tmp_path / "b.duckdb", documents=6)
    for wrong in ("0", "9", "x"):
        with pytest.raises(AnalysisError, match="budgets"):
            analyses.run("committee", tmp_path / "b.duckdb", budgets=wrong)
