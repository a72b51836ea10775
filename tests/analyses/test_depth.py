"""How deep tokens go: hand-made tables, planted dependence that is found, chance that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told

import moescope
from moescope import analyses
from moescope.analyses import Answer
from moescope.errors import AnalysisError

BITS = "I(label; depth) (bits)"
ROUTERS: list[dict[str, Any]] = [
    {"router": r, "experts": 1, "top_k": 1, "kind": "depth", "block_type": f"block.{r}"} for r in (0, 1)
]


def asked(path: Path, **options: Any) -> Answer:
    with moescope.open(path) as store:
        return analyses.run("depth", store, **options)


def chosen(depth: np.ndarray) -> dict[int, np.ndarray]:
    """Two recursions: router r runs where the depth is more than r."""
    return {r: np.where(depth > r, 0, -1)[None, :, None] for r in (0, 1)}


def rows(frame: Any, *columns: str) -> list[list[Any]]:
    found: list[list[Any]] = frame[list(columns)].astype(object).where(lambda f: f.notna(), None).values.tolist()
    return found


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """Six documents of two tokens: nouns go 2 deep, verbs 0 and 1 by turns."""
    path = tmp_path_factory.mktemp("depth") / "exact.duckdb"
    labels = {"upos": np.array(["NOUN", "VERB"] * 6)}
    depth = np.array([2, 0, 2, 1] * 3)
    return asked(told.written(path, ROUTERS, chosen(depth), [], tokens=2, units=("text",), labels=labels, text=True))


def test_distribution_by_hand(exact: Answer) -> None:
    assert rows(exact.figures("share skipped"), "router", "value", "n", "units") == [
        [0, pytest.approx(3 / 12), 12, 6], [1, pytest.approx(6 / 12), 12, 6]]  # fmt: skip
    assert rows(exact.figures("mean depth"), "stack", "value", "n", "units") == [["decoder", pytest.approx(15 / 12), 12, 6]]
    assert rows(exact.figures("share at depth"), "subset", "value", "n") == [
        ["depth=0", 0.25, 12], ["depth=1", 0.25, 12], ["depth=2", 0.5, 12]]  # fmt: skip


def test_labels_by_hand(exact: Answer) -> None:
    """The label tells 1 bit less what is left of a verb, H(1/2), in half of the cases: H(1/4, 1/4, 1/2) - 1/2 = 1 bit."""
    assert rows(exact.figures(BITS, estimator="plug-in"), "subset", "value", "n", "units") == [
        ["upos", pytest.approx(1), 12, 6], ["position", pytest.approx(1), 12, 6]]  # fmt: skip
    assert rows(exact.frames["labels"], "subset", "value", "chance", "n", "units") == [
        ["upos=NOUN", 2, 1.25, 6, 6], ["upos=VERB", 0.5, 1.25, 6, 6], ["position=0", 2, 1.25, 6, 6],
        ["position=1–3", 0.5, 1.25, 6, 6]]  # fmt: skip


def test_tokens_that_are_often_there_are_ranked(tmp_path: Path) -> None:
    depth = np.array([1, 2] * 12)
    said = asked(told.written(tmp_path / "d.duckdb", ROUTERS, chosen(depth), [], tokens=2, units=("text",), text=True))
    assert rows(said.frames["tokens"], "text", "value", "n", "units") == [["w1", 2, 12, 12], ["w0", 1, 12, 12]]


def test_documents_that_are_alike_show_nothing_by_their_label(tmp_path: Path) -> None:
    """A label of whole documents is dealt to documents: 2 of 6 labels alike give p of no less than 1 in 15."""
    depth = np.repeat([2, 2, 0, 0, 1, 1], 10)
    domain = np.repeat(["a", "a", "b", "b", "b", "b"], 10)
    said = asked(
        told.written(tmp_path / "d.duckdb", ROUTERS, chosen(depth), [], tokens=10, units=("text",), labels={"domain": domain})
    )
    row = said.figures(BITS, subset="domain", estimator="less null mean").iloc[0]
    assert row["p"] > 1 / 30
    assert row["null"] == "labels dealt anew to documents, studentized"


@pytest.mark.parametrize("planted", ["upos", "position", None])
def test_planted_is_found_and_chance_is_not(planted: str | None, tmp_path: Path) -> None:
    """Twenty documents, each as deep as it likes by itself; verbs, or the first four tokens, go down."""
    rng = np.random.default_rng(1)
    depth = np.concatenate([rng.choice(3, 30, p=p) for p in rng.dirichlet(np.ones(3), 20)])
    upos, position = rng.choice(["NOUN", "VERB", "ADJ"], 600), np.arange(600) % 30
    mask = {"upos": upos == "VERB", "position": position < 4, None: np.zeros(600, bool)}[planted]
    depth = np.where(mask, 2, depth)
    said = asked(
        told.written(tmp_path / "d.duckdb", ROUTERS, chosen(depth), [], tokens=30, units=("text",), labels={"upos": upos})
    )
    found = said.figures(BITS, estimator="less null mean").set_index("subset")
    assert {kind for kind, row in found.iterrows() if row["q"] <= 0.05} == ({planted} if planted else set())
    if planted:
        assert found.loc[planted, "ci_low"] > 0
        assert f"the {planted} " in said.reading
    assert "no label, position or token" in said.reading or planted


REFUSED = {
    "kind": ({"kind": "token_choice"}, {}, r"no router of run 0 decides about depth \(kinds there: token_choice\)"),
    "label": ({}, {"kinds": "sense"}, r"has no label 'sense' \(it has: upos \(2\)\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, tmp_path: Path) -> None:
    router, options, words = REFUSED[case]
    path = told.written(tmp_path / "d.duckdb", [{**r, **router} for r in ROUTERS], chosen(np.array([0, 1, 2, 1])), [], tokens=2,
                        units=("text",), labels={"upos": np.array(["NOUN", "VERB"] * 2)})  # fmt: skip
    with pytest.raises(AnalysisError, match=words):
        asked(path, **options)
