"""The CSV that is offered with a chart holds what the chart draws, for every analysis that is discovered and on every page."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import experimented
import labelled
import numpy as np
import pandas as pd
import pytest
import synthetic
import synthetic_app
import told_systems
from drawn import assert_same_rows
from streamlit.testing.v1 import AppTest
from synthetic_effects import add_effects

import moescope
from moescope import analyses
from moescope.errors import AnalysisError
from moescope.store import Store

MAIN = Path(__file__).parents[3] / "moescope" / "app" / "main.py"


BEYOND = {"conditions": told_systems.denoiser, "depth": told_systems.recursions, "modality": told_systems.pictures_and_words}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Store]]:
    """Words with labels; and documents of domains whose logits were stored: two runs each."""
    folder = tmp_path_factory.mktemp("charts")
    for seed in (0, 1):
        labelled.make(folder / "words.duckdb", upos=2.0, documents=20, tokens=40, seed=seed)
        synthetic.make(folder / "domains.duckdb", synthetic.verbs(3), seed=seed, logits=True)
    experimented.add(folder / "domains.duckdb", run=1)
    for name, make in BEYOND.items():
        make(folder / f"{name}.duckdb")
    matrix = np.random.default_rng(0).normal(size=(400, 6))
    with moescope.open(folder / "domains.duckdb") as store:
        token = [key for (key,) in store.rows("select token from tokens where run = 1 order by token limit 400")]
    np.savez(folder / "features.npz", features=matrix, token=token, layer=2)
    with ExitStack() as stack:
        yield {path.stem: stack.enter_context(moescope.open(path)) for path in folder.glob("*.duckdb")}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, pd.DataFrame, str]]:
    """(name, chart, frame, SQL) of every file that a page offers."""
    import streamlit as st

    from moescope.app.parts import figures

    found: list[tuple[str, Any, pd.DataFrame, str]] = []

    def files(frame: pd.DataFrame, sql: str, params: Any = (), *, name: str, chart: Any = None, drawing: Any = None) -> None:
        found.append((name, chart() if callable(chart) else chart, frame, sql))

    monkeypatch.setattr(figures, "files", files)
    monkeypatch.setattr(st, "altair_chart", lambda *args, **kwargs: None)
    return found


def answered(name: str, stores: dict[str, Store]) -> analyses.Answer:
    """The answer about the store that the analysis can say something of."""
    store = asked(name, stores)
    options = {"path": str(Path(store.path).with_name("features.npz"))} if name == "features" else {}
    return analyses.run(name, store, **options)


def asked(name: str, stores: dict[str, Store]) -> Store:
    return stores[
        name if name in BEYOND else "words" if name in ("syntax", "syntax_experts", "senses", "path_probe") else "domains"
    ]


NAMES = [entry["name"] for entry in analyses.catalogue()]
EACH = [pytest.param(name, marks=pytest.mark.slow) if name == "signatures" else name for name in NAMES]  # it learns maps


@pytest.mark.parametrize("name", EACH)
@pytest.mark.sampled(3)
def test_the_file_beside_a_chart_of_an_analysis_is_what_it_draws(
    name: str, stores: Any, offered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moescope.app.parts import answers

    answer = answered(name, stores)
    monkeypatch.setenv("MOESCOPE_STORE", str(asked(name, stores).path))  # in which links look for what they open
    answers.show(answer)
    assert len(offered) == len(answer.charts()) > 0
    for _, chart, frame, _ in offered:
        assert_same_rows(chart, frame)
    for shown in answer.charts().values():
        words, _, query = shown.sql.partition("\n")
        assert words == "/* What is drawn is computed from the rows of this query. */"
        assert any(counted in query for counted in answer.sql.values())
        assert asked(answer.name, stores).sql(shown.sql).limit(1).fetchall()
    assert set(answer.frames) <= set(answer.sql)


def test_an_analysis_that_names_no_query_is_refused() -> None:
    with pytest.raises(AnalysisError, match=r"odd says for 'words' not which query it is computed from"):
        analyses.Answer("odd", "Odd", "", 0, {"figures": pd.DataFrame(), "words": pd.DataFrame()}, {"figures": "select 1"})


PAGES: list[tuple[str, dict[str, str], set[str]]] = [
    ("runs", {}, {"load-0-decoder"}),
    ("load", {"what-if": "1"}, {"load-share-decoder", "load-entropy", "routing-entropy", "max-violation", "loss",
                                "training-load_entropy", "what-if", "what-if-layers"}),
    ("load", {"what-if": "1", "run": "2", "count": "unrouted"}, {"load-demand-encoder", "what-if"}),
    ("load", {"run": "3", "value": "dropped"}, {"dropped"}),
    ("load", {"domain": "domain=law", "difference": "1"}, {"load-difference-decoder"}),
    ("tokens", {"token": "9"}, {"route"}),
    ("experts", {"more": "labels"}, {"expert-upos"}),
    ("experts", {"more": "company"}, {"Runs-together-with"}),
    ("experts", {"more": "without", "layer": "layer 1", "expert": "3"}, {"expert-effects"}),
    ("structure", {}, {"coactivation", "flow"}),
    ("meaning", {}, {"map"}),
    ("compare", {"with": "1"}, {"difference-decoder", "agreement"}),
    ("ablation", {"kind": "domain"}, {"effects", "beyond", "by-domain-none", "against-load"}),
    ("dimensionality", {}, set()),
    ("sql", {"show": "chart", "form": "bars"}, {"query"}),
    ("sql", {"show": "chart", "form": "heatmap", "x": "expert", "y": "layer", "colour": "share"}, {"query"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with effects of ablations; the first is a training, in which every third step has no loss."""
    path = add_effects(synthetic_app.demo(tmp_path_factory.mktemp("pages") / "demo.duckdb"))
    with duckdb.connect(str(path)) as con:
        con.execute("update forwards set phase = 'train', step = forward where run = 0")
        con.execute("update forwards set loss = 2 + 1 / (1 + forward) where run = 0 and forward % 3 > 0")
    return path


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """By name, what is sent to the browser of every heat map."""
    from moescope.app.components import heat_map

    found: dict[str, dict[str, Any]] = {}
    show = heat_map.show

    def seen(data: dict[str, Any], key: str, clicked: Any = None) -> None:
        found[key.removeprefix("heat-")] = data
        show(data, key, clicked)

    monkeypatch.setattr(heat_map, "show", seen)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("view", "query", "wanted"), PAGES)
@pytest.mark.sampled(6)
def test_the_file_beside_a_chart_of_a_page_is_what_it_draws(
    view: str, query: dict[str, str], wanted: set[str], demo: Path, offered: Any, maps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(demo))
    test = AppTest.from_file(str(MAIN), default_timeout=120)
    test.query_params.update({"run": "0", **query})
    test.switch_page(f"views/{view}.py")
    assert not test.run().error
    charts = {name: (chart, frame) for name, chart, frame, _ in offered if chart is not None}
    assert set(charts) >= wanted
    for name, (chart, frame) in charts.items():
        if name == "flow":  # curves of the rows; their widths are drawn
            assert sorted(chart.layer[0].data.groupby("link")["n"].first()) == sorted(frame["n"])
        else:
            assert_same_rows(chart, frame)
        if name in maps:
            assert_same_cells(maps[name], frame)


def assert_same_cells(data: dict[str, Any], frame: pd.DataFrame) -> None:
    """The heat map of the browser shows every row of the CSV in its cell, and nothing else."""
    x, y, value = ({c.replace("_", " "): c for c in frame}[name] for name in data["names"])
    kind, packed = data["values"]
    cells = np.frombuffer(base64.b64decode(packed), f"<{kind}").reshape(len(data["keys"][1]), len(data["keys"][0]))
    columns, rows = (list(keys) for keys in data["keys"])
    shown = {(columns[j], rows[i]): cells[i, j] for i, j in np.argwhere(~np.isnan(cells))}
    kept = {(row[x], row[y]): row[value] for row in frame.dropna(subset=[value]).to_dict("records")}
    assert shown == pytest.approx(kept, rel=1e-6)
