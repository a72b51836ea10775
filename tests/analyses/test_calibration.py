"""Worlds without structure, as uneven as corpora are: nothing is claimed of them; and what is planted is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import worlds
from worlds import WORLDS, Plant, World

from benchmarks.calibration.asked import claims
from moescope import analyses
from moescope import statistics as st
from moescope.analyses._shared.document_counts import Table
from moescope.analyses.specialization.labels import by_label

Made = Callable[[str, int], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The store of a world, made once."""
    folder, known = tmp_path_factory.mktemp("worlds"), dict[tuple[str, int], Path]()

    def make(name: str, seed: int) -> Path:
        if (name, seed) not in known:
            known[name, seed] = folder / f"{name}-{seed}.duckdb"
            worlds.make(known[name, seed], WORLDS[name], seed, worlds.SIZES[seed % 4])
        return known[name, seed]

    return make


@pytest.mark.parametrize(
    ("analysis", "world", "seeds"),
    [("specialization", "short", 4), ("specialization", "many", 3), ("syntax", "topics", 2), ("syntax_experts", "topics", 3),
     ("path_probe", "topics", 3), ("senses", "topics", 3), ("importance", "equal", 2), ("structure", "equal", 2)],
)  # fmt: skip
@pytest.mark.sampled(4)
def test_nothing_is_claimed_where_nothing_is(made: Made, analysis: str, world: str, seeds: int) -> None:
    """One world in the whole table may have a finding by luck; before, most of these had some."""
    said = [claims(analyses.run(analysis, made(world, seed)), world) for seed in range(seeds)]
    assert sum(bool(found) for found in said) <= (1 if analysis == "syntax" else 0), said


def test_topics_show_in_the_contrast_alone(made: Made) -> None:
    """Given the token alone a topic looks like routing by part of speech: marked as a contrast, and not in the sentence."""
    answer = analyses.run("syntax", made("topics", 1), kinds="upos")
    token = answer.figures("I(expert; label | token) (bits)", estimator="corrected")
    assert (token["q"] <= 0.05).all()
    assert token["null"].str.contains("for contrast").all()
    assert answer.verdict.sentence.startswith("Beyond token and document, routing tells nothing of upos: at most ")


def routed(rng: np.random.Generator, documents: int, labels: int, experts: int, planted: bool, more: float) -> Table:
    """Counts of a router of top-1: documents of 40 to 400 tokens; in label 0 expert 3 is chosen more often by `more`."""
    home = np.arange(documents) % labels
    share = np.full((labels, experts), 1 / experts)
    if planted:
        share[0] *= (1 - 1 / experts - more) / (1 - 1 / experts)
        share[0, 3] = 1 / experts + more
    counts = np.zeros((documents, labels, experts))
    for unit, label in enumerate(home):
        counts[unit, label] = rng.multinomial(rng.integers(40, 400), share[label])
    return Table(pd.Series({"stack": "decoder", "layer": 0, "router": 0, "top_k": 1}), [str(i) for i in range(labels)], counts)


def test_a_lone_specialist_is_named() -> None:
    """One expert in 8 routers of 32 for one of 5 labels: 1280 cells, of which one passes the false discovery rate."""
    rng, special, share = np.random.default_rng(0), *([st.Pool() for _ in range(5)] for _ in range(2))
    tables = [routed(rng, 60, 5, 32, number == 2, 0.03) for number in range(8)]
    made = [by_label(table, table.counts.sum((1, 2)), "domain", special, share) for table in tables]
    cells = pd.concat([one.share.tested().assign(number=n) for n, one in enumerate(made)], ignore_index=True)
    q = st.fdr(cells["p"].to_numpy(float)) * 8  # as many names as the analysis tests
    assert cells[q <= 0.05][["number", "expert", "subset"]].values.tolist() == [[2, 3, "domain=0"]]


@pytest.mark.parametrize("sizes", [(24, 24), (5, 200)])
def test_level_of_cells_where_labels_differ_in_size_and_length(sizes: tuple[int, int]) -> None:
    """Documents of one label of 30 tokens, of the other 600, which lean; p at or under .05 as often as that says."""
    rng, below, count = np.random.default_rng(1), 0, 0
    for _ in range(30):
        home = np.repeat([0, 1], sizes)
        length = np.where(home == 0, 30, 600)
        lean = rng.dirichlet(np.full(8, 40.0), len(home))
        counts = np.zeros((len(home), 2, 8))
        counts[np.arange(len(home)), home] = [rng.multinomial(n, p) for n, p in zip(length, lean)]
        table = Table(pd.Series({"stack": "decoder", "layer": 0, "router": 0, "top_k": 1}), ["a", "b"], counts)
        pools = [st.Pool(), st.Pool()]
        p = by_label(table, counts.sum((1, 2)), "domain", [st.Pool(), st.Pool()], pools).share.tested()["p"].to_numpy(float)[:8]
        below, count = below + int((p <= 0.05).sum()), count + 8
    assert 0.02 < below / count < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


def test_a_plant_in_a_store_is_named(tmp_path: Path) -> None:
    """Expert 5 of layer 1 takes more of label 2, whose documents are short."""
    world = World(lengths=(400, 400, 60, 400))
    worlds.make(tmp_path / "x.duckdb", world, 0, (16, 2), (Plant(1, 5, 0.9, 2),))
    found = analyses.run("specialization", tmp_path / "x.duckdb").frames["specialists"]
    assert found[["layer", "expert", "subset"]].values.tolist() == [[1, 5, "domain=label 2"]]
