"""Worlds without structure, as uneven as corpora are: nothing is claimed of them; and what is planted is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import worlds
from worlds import WORLDS, Plant, World

from benchmarks.calibration.asked import claims
from benchmarks.calibration.kept import OPTIONS
from moescope import analyses
from moescope import statistics as st
from moescope.analyses import signatures
from moescope.analyses._shared.arrays.document_counts import Table
from moescope.analyses._shared.arrays.token_table import Kind
from moescope.analyses._shared.dealt_labels import deal
from moescope.analyses.signatures.maps import tree
from moescope.analyses.specialization.labels import by_label
from moescope.statistics.conditional import information
from moescope.statistics.labelled import labelled

Made = Callable[[str, int], Path]
LENGTHS = {"short": (30, 600, 600, 600), "many": (30, 30)}  # longer than those that `make calibrate` makes by the hundred


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The store of a world, made once."""
    folder, known = tmp_path_factory.mktemp("worlds"), dict[tuple[str, int], Path]()

    def make(name: str, seed: int) -> Path:
        if (name, seed) not in known:
            known[name, seed] = folder / f"{name}-{seed}.duckdb"
            world = replace(WORLDS[name], lengths=LENGTHS.get(name, (120,) * 4))
            worlds.make(known[name, seed], world, seed, worlds.SIZES[seed % 4])
        return known[name, seed]

    return make


@pytest.mark.parametrize(
    ("analysis", "world", "seeds"),
    [("specialization", "short", 4), ("specialization", "many", 3), ("syntax", "topics", 2), ("syntax_experts", "topics", 3),
     ("path_probe", "topics", 3), ("senses", "topics", 3), ("importance", "equal", 2), ("structure", "equal", 2),
     ("signatures", "own words", 2)],
)  # fmt: skip
@pytest.mark.sampled(4)
def test_nothing_is_claimed_where_nothing_is(made: Made, analysis: str, world: str, seeds: int) -> None:
    """One world in the whole table may have a finding by luck; before, most of these had some."""
    said = [claims(analyses.run(analysis, made(world, seed), **OPTIONS.get(analysis, {})), world) for seed in range(seeds)]
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
    q = st.fdr(cells["p"].to_numpy(float)) * 9  # as many names as the analysis tests
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


def test_words_of_documents_agree_with_no_label_dealt_to_documents() -> None:
    """Words stand in documents of their own, which are routed their own way: half of all labels would seem to be followed."""
    rng, documents, words = np.random.default_rng(0), 16, 5
    item = np.repeat(np.arange(documents * words), 40)
    expert = (rng.gumbel(size=(len(item), 16)) + 3 * rng.normal(size=(documents, 16))[item // words]).argmax(1)
    experts = pd.DataFrame({"expert": range(16)})
    ran = signatures._Ran(item // words, item, expert, np.ones(len(item)), documents * words, experts)
    trees = [(np.arange(documents * words), tree(np.sqrt(st.shares(ran.table()))))] * 2
    below = np.zeros(2)
    for _ in range(12):
        own = rng.permutation(np.arange(documents) % 4)
        kind = Kind("domain", own[item // words], list("abcd"), item // words, "document")
        dealt = signatures._dealt(kind, item // words, item, np.arange(len(item)))
        found = [signatures._agreement(kind, np.repeat(own, words), trees, ran, null)[0]["p"][0] for null in (None, dealt)]
        below += np.array(found) <= 0.05
    assert below[1] <= 2 < 4 < below[0]


def test_level_of_a_mean_of_largest_shares() -> None:
    """The largest of many shares is skewed, which 19 shuffles do not show: without it twice as many are below .01."""
    rng, n = np.random.default_rng(0), np.full(2, 40)
    largest = (rng.multinomial(n, np.full(16, 1 / 16), size=(2000, 20, 2)) / 40).max(-1).mean(-1)
    value, null = largest[:, 0], largest[:, 1:].T
    plain, told = (float((st.t_tail(value, null, skew=skew) <= 0.01).mean()) for skew in (0.0, st.skew_of_largest(n)))
    assert told < 0.012 < 0.02 < plain


@pytest.mark.parametrize(("own", "documents", "lengths"), [
    (0.0, (12,) * 4, (12, 240, 240, 240)), (0.0, (4, 20), (20, 300)), (0.0, (12,) * 4, (60,) * 4), (0.6, (12,) * 4, (60,) * 4),
], ids=["short", "few and short", "equal", "words that one label alone has"])  # fmt: skip
def test_information_of_whole_documents_where_they_differ_in_length(
    own: float, documents: tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    """Given the token it is 0 on average, and intervals hold that: labels dealt anew, all equally precise, took off
    a fifth too much, and scaled they gave intervals that held it in 5 to 9 of 10 worlds."""
    home, held = np.repeat(np.arange(len(documents)), documents), 0
    off: list[float] = []
    document = np.repeat(np.arange(len(home)), np.array(lengths)[home])
    for seed in range(16):
        rng = np.random.default_rng([seed, 23])
        word = np.minimum(rng.zipf(1.4, len(document)), 60) - 1
        word += 60 * (1 + home[document]) * (rng.random(len(document)) < own)
        lean = 0.4 * rng.normal(size=(len(home), 8))[document]
        expert = (rng.gumbel(size=lean.shape) + lean).argmax(1)
        found = information(labelled(home[document], word.astype(np.int64), document, document, 99), expert)
        draws, null = found.draws(st.bootstrap_weights(len(home))), found.null - found.null.mean()
        low, high = st.information_interval(np.array([found.value]), draws[:, None], null[:, None], len(home))
        held, off = held + int(low[0] <= 0 <= high[0]), [*off, found.value]
    assert abs(np.mean(off)) < max(3 * np.std(off) / np.sqrt(len(off)), found.null.std() / 3), off
    assert held >= 14


def test_a_value_that_chance_reaches_says_little_of_its_slope() -> None:
    """A bootstrap of few tokens among many experts varies much more than the null: intervals ended at 51 bits of 8."""
    rng = np.random.default_rng(0)
    draws, null = rng.normal(0, 0.1, (400, 1)), rng.normal(0, 0.005, (199, 1))
    ends = [float(st.information_interval(np.array([value]), draws, null, 48)[1][0]) for value in (0.0, 0.0001, 0.001, 0.002)]
    assert ends[0] == pytest.approx(0.01, abs=0.002)
    assert ends[1] < 0.06 < ends[2] < ends[3] < 0.9


def test_null_means_of_loads_hold_where_documents_differ_in_length() -> None:
    """Of the label alone: documents dealt plainly took off a quarter too much, as one label has short documents only."""
    off, home = [], np.repeat(np.arange(4), 12)
    for seed in range(60):
        rng, counts = np.random.default_rng([seed, 22]), np.zeros((48, 8))
        for unit, label in enumerate(home):
            counts[unit] = rng.multinomial((12, 240, 240, 240)[label], rng.dirichlet(np.full(8, 6.0)))
        dealt = deal(home, 4, st.Rates(counts, counts.sum(1)), 299)
        null = st.mutual_information(dealt.null.counts) * dealt.fair
        off.append(float(st.mutual_information(dealt.observed.counts) / null.mean() - 1))
    assert abs(np.mean(off)) < 2.5 * np.std(off) / np.sqrt(len(off)), np.mean(off)
