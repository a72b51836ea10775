"""What conditions tell of experts: hand-made tables, planted structure that is found, chance that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told

import moescope
from moescope import analyses, statistics
from moescope.analyses import Answer
from moescope.errors import AnalysisError

BITS = "I(condition; expert) (bits)"


def asked(path: Path, **options: Any) -> Answer:
    with moescope.open(path) as store:
        return analyses.run("conditions", store, **options)


def table(steps: int, documents: int, tokens: int, seed: int, experts: int = 4) -> np.ndarray:
    """(steps, documents × tokens, 1): a document has experts of its own, and nothing else is known of them."""
    rng = np.random.default_rng(seed)
    own = rng.dirichlet(np.full(experts, 2.0), documents)
    return np.stack([[rng.choice(experts, tokens, p=p) for p in own] for _ in range(steps)]).reshape(steps, -1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("conditions"))


@pytest.fixture(scope="module")
def exact(folder: Path) -> Answer:
    """Six documents: at 900 all go to expert 0, at 100 half of them to 0, half to 1."""
    chosen = np.array([[0] * 6, [0, 1] * 3])[:, :, None]
    router = {"router": 0, "experts": 2, "top_k": 1, "block_type": "attention.q_proj"}
    return asked(told.written(folder / "exact.duckdb", [router], {0: chosen}, told.timesteps(900, 100)))


def test_rows_by_hand(exact: Answer) -> None:
    """Loads 1 and 1/2; I = H(3/4, 1/4) - 1/2 bit; JSD = H(3/4, 1/4) - (0 + 1) / 2."""
    bits = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5
    columns = ["name", "estimator", "router", "expert", "subset", "value", "chance", "n", "units"]
    rows = exact.frames["figures"][columns].astype(object).where(lambda f: f.notna(), None).values.tolist()
    wanted = [
        [BITS, "plug-in", 0, None, "timestep", bits, 0, 12, 6],
        ["share of load by condition", "definition", 0, 0, "timestep=100", 0.5, 0.75, 6, 6],
        ["share of load by condition", "definition", 0, 1, "timestep=100", 0.5, 0.25, 6, 6],
        ["share of load by condition", "definition", 0, 0, "timestep=900", 1, 0.75, 6, 6],
        ["share of load by condition", "definition", 0, 1, "timestep=900", 0, 0.25, 6, 6],
        ["JSD (bits)", "neighbours", 0, None, "timestep=100, 900", bits, 0, 12, 6],
    ]
    assert [row for row in rows if row[1] != "less null mean"] == [pytest.approx(row) for row in wanted]


def test_sites_by_hand(exact: Answer) -> None:
    row = exact.frames["sites"].iloc[0]
    assert [row[c] for c in ("kind", "block_type", "routers", "most_in")] == ["timestep", "attention.q_proj", 1, "routers.0"]
    assert row["mean_bits"] == row["most_bits"] == exact.figures(BITS, estimator="less null mean")["value"].iloc[0]


def test_null_holds_what_a_document_did() -> None:
    """Two documents, two values: each document keeps its rows, and only 2 x 2 tables can come."""
    counts = np.array([[[3.0, 0], [0, 1]], [[2, 2], [0, 4]]])
    found = {tuple(t.ravel()) for t in statistics.dealt(counts, 200)}
    assert found == {(5, 2, 0, 5), (0, 5, 5, 2), (3, 4, 2, 3), (2, 3, 3, 4)}


def test_null_deals_classes_among_documents() -> None:
    """Three documents of one class each, of two classes: the classes go to other documents, two and one."""
    counts = np.zeros((3, 2, 3))
    counts[[0, 1, 2], [0, 0, 1], [0, 1, 2]] = 1
    found = {tuple(t.ravel()) for t in statistics.dealt(counts, 200)}
    assert found == {(1, 1, 0, 0, 0, 1), (1, 0, 1, 0, 1, 0), (0, 1, 1, 1, 0, 0)}


PLANTS = {
    "timestep": lambda chosen, documents: np.where(np.arange(4)[:, None, None] == 2, 1, chosen),
    "class": lambda chosen, documents: np.where((documents % 2 == 0)[None, :, None], 1, chosen),
    "task": lambda chosen, documents: np.where((documents % 3 == 0)[None, :, None], 2, chosen),
}


@pytest.fixture(scope="module", params=[None, *PLANTS])
def answer(request: pytest.FixtureRequest, folder: Path) -> tuple[str | None, Answer]:
    """Thirty documents of eight tokens, four timesteps; a third of the tokens follows what is planted, or none does."""
    chosen, documents = table(4, 30, 8, 6), np.arange(240) // 8
    if request.param:
        chosen[:, ::3] = PLANTS[request.param](chosen, documents)[:, ::3]
    said = [*told.timesteps(800, 600, 400, 200), *told.classes("class", ["cat", "dog"] * 15, 4),
            *told.classes("task", ["sum", "qa", "chat"] * 10, 4)]  # fmt: skip
    path = folder / f"{request.param}.duckdb"
    told.written(path, [{"router": 0, "experts": 4, "top_k": 1}], {0: chosen}, said, tokens=8)
    return request.param, asked(path)


def test_planted_is_found_and_chance_is_not(answer: tuple[str | None, Answer]) -> None:
    planted, said = answer
    rows = said.figures(BITS, estimator="less null mean").set_index("subset")
    assert {kind for kind, row in rows.iterrows() if row["q"] <= 0.05} == ({planted} if planted else set())
    if planted:
        assert rows.loc[planted, "ci_low"] > 0
    assert said.frames["sites"].set_index("kind")["found"].to_dict() == {
        k: int(k == planted) for k in ("class", "task", "timestep")
    }
    assert len(said.charts()) == 6


VALUES = {"timestep": np.repeat(np.arange(4), 60), "class": np.tile(np.arange(60) // 5 % 3, 4)}


@pytest.mark.parametrize("kind", VALUES)
def test_chance_is_found_as_often_as_said(kind: str) -> None:
    """p of documents that lean by themselves, and values by chance: under 0.1 in about a tenth of 200 tables."""
    p, documents = [], np.tile(np.arange(60) // 5, 4)
    for seed in range(200):
        counts = np.zeros((12, 4, 4))
        np.add.at(counts, (documents, VALUES[kind], table(4, 12, 5, seed).ravel()), 1)
        null = statistics.mutual_information(statistics.dealt(counts, 99))
        p.append(statistics.p_value(statistics.mutual_information(counts.sum(0)), null))
    assert 0.05 <= np.mean(np.array(p) <= 0.1) <= 0.16


def test_few_documents_have_no_interval(folder: Path) -> None:
    path = told.written(folder / "few.duckdb", [{"router": 0, "experts": 4, "top_k": 1}], {0: table(3, 4, 6, 0)},
                        told.timesteps(3, 2, 1), tokens=6)  # fmt: skip
    said = asked(path)
    assert said.frames["figures"]["ci_low"].isna().all()
    assert any("fewer than 5 documents" in note for note in said.notes)


def test_many_numbers_are_put_into_bins_in_their_order(folder: Path) -> None:
    steps = [float(t) for t in range(990, -10, -25)]  # 40 of them
    path = told.written(folder / "many.duckdb", [{"router": 0, "experts": 4, "top_k": 1}], {0: table(40, 6, 2, 1)},
                        told.timesteps(*steps), tokens=2)  # fmt: skip
    loads = asked(path).frames["loads"]
    assert loads["subset"].drop_duplicates().tolist()[:3] == ["timestep=15 – 90", "timestep=115 – 190", "timestep=215 – 290"]
    assert loads["subset"].nunique() == 10


def test_numbers_are_in_their_order(folder: Path) -> None:
    path = told.written(folder / "order.duckdb", [{"router": 0, "experts": 4, "top_k": 1}], {0: table(3, 6, 2, 1)},
                        told.timesteps(1000, 99, 500), tokens=2)  # fmt: skip
    assert asked(path).figures("JSD (bits)")["subset"].tolist() == ["timestep=99, 500", "timestep=500, 1000"]


def test_where_all_experts_run_their_weights_are_the_load(folder: Path) -> None:
    """Counts are even by definition; the weights are 3/4 and 1/4 at one step, the other way round at the next."""
    both = np.tile([0, 1], (2, 6, 1))
    weights = np.zeros((2, 6, 2)) + np.array([[[0.75, 0.25]], [[0.25, 0.75]]])
    router = {"router": 0, "experts": 2, "kind": "dense"}
    path = told.written(folder / "dense.duckdb", [router], {0: both}, told.timesteps(1, 2), weights={0: weights})
    shares = asked(path).figures("share of load by condition")
    assert shares[["subset", "expert", "value"]].values.tolist() == [
        ["timestep=1", 0, 0.75], ["timestep=1", 1, 0.25], ["timestep=2", 0, 0.25], ["timestep=2", 1, 0.75]]  # fmt: skip


REFUSED = {
    "none": ([], {}, "were told no condition"),
    "one value": (told.timesteps(7, 7), {}, "never change"),
    "unknown": (told.timesteps(1, 2), {"kind": "sigma"}, r"was told a condition 'sigma'; there are.*timestep \(2\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, folder: Path) -> None:
    conditions, options, words = REFUSED[case]
    path = told.written(
        folder / f"{case}.duckdb", [{"router": 0, "experts": 2, "top_k": 1}], {0: table(2, 3, 1, 0, 2)}, conditions
    )
    with pytest.raises(AnalysisError, match=words):
        asked(path, **options)


def test_routers_of_one_expert_are_refused(folder: Path) -> None:
    path = told.written(folder / "one.duckdb", [{"router": 0, "experts": 1, "top_k": 1, "kind": "depth"}],
                        {0: np.zeros((2, 3, 1), int)}, told.timesteps(1, 2))  # fmt: skip
    with pytest.raises(AnalysisError, match="no router of run 0 has two experts"):
        asked(path)
