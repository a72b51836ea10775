"""The dashboard over a store that the tracer itself wrote: no page fails, and what pages say is what the store holds."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real
from streamlit.testing.v1 import AppTest

import moescope

pytestmark = pytest.mark.slow
MAIN = Path(__file__).parents[2] / "moescope" / "app" / "main.py"
PAGES = sorted(path.stem for path in (MAIN.parent / "views").glob("[a-z]*.py"))
Opened = Callable[..., AppTest]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real.made(tmp_path_factory.mktemp("real") / "real.duckdb")


@pytest.fixture
def opened(store: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Opens a page of the store; nothing on it failed."""
    monkeypatch.setenv("MOESCOPE_STORE", str(store))

    def look(view: str, run: int = 0, **query: str) -> AppTest:
        test = AppTest.from_file(str(MAIN), default_timeout=120)
        test.query_params.update(query | {"run": str(run)})
        test.switch_page(f"views/{view}.py")
        test.run()
        assert (list(test.exception), [e.value for e in test.error]) == ([], [])
        return test

    return look


def words(test: AppTest) -> str:
    """What a reader sees of the page's own HTML, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", " ".join(h.proto.body for h in test.get("html"))))


def maps(test: AppTest) -> dict[str, dict[tuple[Any, Any], float]]:
    """By title, {(row, column): value} of every heat map."""
    found = {}
    for part in test.get("bidi_component"):
        if part.proto.component_name != "moescope_heat_map":
            continue
        data = json.loads(part.proto.json)
        columns, rows = data["keys"]
        kind, packed = data["values"]
        values = np.frombuffer(base64.b64decode(packed), dtype=f"<{kind}").reshape(len(rows), len(columns))
        found[data["title"]] = {
            (r, c): float(values[i, j])
            for i, r in enumerate(rows)
            for j, c in enumerate(columns)
            if values[i, j] == values[i, j]
        }
    return found


ROUTED = (real.MEASURED, real.SEQUENCES, real.IMAGES, real.JETMOE, real.UNTRAINED, real.CUT)


@pytest.mark.parametrize("view", PAGES)
@pytest.mark.sampled(2)
def test_every_page_shows_every_kind_of_run(view: str, opened: Opened) -> None:
    for run in (*ROUTED, real.RECURSIVE):
        opened(view, run)


def test_runs_say_what_the_tracer_proved(opened: Opened) -> None:
    said = words(opened("runs"))
    assert re.search(r"Proof 4 of 4 routers: layers recomputed to \de-\d+; written back bit for bit", said), said
    assert "Decisions 5.13 k 1.28 k tokens, 4 routers" in said


def test_a_run_that_was_cut_off_says_how_far_it_came(opened: Opened) -> None:
    assert "This run was cut off 4 of 6 sequences are safe" in words(opened("runs", real.CUT))


@pytest.mark.parametrize("run", ROUTED)
def test_load_is_that_of_every_router(run: int, store: Path, opened: Opened) -> None:
    """Every router's shares stand in a map of their own row: two routers of one layer never share a cell."""
    with moescope.open(store) as known:
        rows = known.rows(
            "select case when m.name = 'jetmoe' then r.stack || ' ' || r.block_type else r.stack end, l.layer, l.expert, "
            "l.share "
            "from expert_load l join routers r using (router) join runs m on m.run = l.run where l.run = ?",
            [run],
        )
        lost = known.rows("select sum(dropped) from load_rollup where run = ?", [run])[0][0]
    wanted: dict[str, dict[tuple[int, int], float]] = {}
    for stack, layer, expert, share in rows:
        wanted.setdefault(f"Share of {'what ran' if lost else 'assignments'}, {stack}", {})[layer, expert] = share
    seen = {title: cells for title, cells in maps(opened("load", run, value="share")).items() if title in wanted}
    assert seen.keys() == wanted.keys()
    for title, cells in wanted.items():
        assert seen[title] == pytest.approx(cells, rel=1e-6), title


def test_intervals_at_a_glance_are_those_of_the_analysis(store: Path, opened: Opened) -> None:
    """The page counts by document itself; both draw documents, in another order."""
    from moescope import analyses

    opened("load")
    from moescope.app.queries import balance

    with moescope.open(store) as known:
        figures = analyses.run("load", known, real.MEASURED).figures("MaxVio", subset="").set_index("router")
        run = known.sql(f"select run, assignments from runs where run = {real.MEASURED}").df().to_dict("records")[0]
    seen = balance.figures(run).set_index("router")
    assert len(seen) == len(figures) == 4
    for router, row in figures.iterrows():
        wide = row["ci_high"] - row["ci_low"]
        assert seen.loc[router, "max_violation"] == pytest.approx(row["value"], rel=1e-9)
        for mine, theirs in (("max_violation_low", "ci_low"), ("max_violation_high", "ci_high")):
            assert seen.loc[router, mine] == pytest.approx(row[theirs], abs=0.2 * wide)


def test_route_of_a_token_names_both_routers_of_a_layer(store: Path, opened: Opened) -> None:
    with moescope.open(store) as known:
        token, total = known.rows(
            "select token, sum(weight) from assignments where run = ? group by token order by token limit 1", [real.JETMOE]
        )[0]
    cells = maps(opened("tokens", real.JETMOE, token=str(token)))["Weights along the way"]
    assert {row for row, _ in cells} == {f"{layer} {site}" for layer in range(4) for site in ("attention", "ffn")}
    assert sum(cells.values()) == pytest.approx(total, rel=1e-5)


def test_dimensionality_by_layer_and_expert_is_what_was_measured(store: Path, opened: Opened) -> None:
    test = opened("dimensionality", states="expert output")
    sql = (
        "select layer, expert, value from measures where run = 0 and subset = 'expert output' and estimator = 'unbiased' "
        "and name = 'participation_ratio'"
    )
    with moescope.open(store) as known:
        rows = known.rows(sql)
    assert maps(test)["Dimensions of expert output, decoder"] == pytest.approx({(r[0], r[1]): r[2] for r in rows}, rel=1e-5)
    assert "Routing of the decoder" in words(test)
    controlled = words(opened("dimensionality", control=str(real.UNTRAINED)))
    assert "Routing of the decoder, control" in controlled
    theirs = f"expert output, control run {real.UNTRAINED}"
    shown = maps(opened("dimensionality", control=str(real.UNTRAINED), states=theirs))[f"Dimensions of {theirs}, decoder"]
    with moescope.open(store) as known:
        rows = known.rows(sql.replace("run = 0", f"run = {real.UNTRAINED}"))
    assert shown == pytest.approx({(r[0], r[1]): r[2] for r in rows}, rel=1e-5)
    assert len(shown) > 10


def test_cycles_of_a_model_without_routers(opened: Opened) -> None:
    test = opened("dimensionality", real.RECURSIVE, control=str(real.OTHER))
    assert "By cycle" in words(test)
    assert re.search(r"H_module ÷ L_module \d\.\d\d \[\d\.\d\d, \d\.\d\d\]; 1: the slow", words(test)), words(test)
    (chart,) = [json.loads(c.proto.spec) for c in test.get("vega_lite_chart")] or [None]
    assert chart is not None


def test_unlike_models_are_not_subtracted(opened: Opened) -> None:
    unlike = opened("compare", real.MEASURED, **{"with": str(real.IMAGES)})
    assert "These are different models" in words(unlike)
    assert maps(unlike) == {}
    alike = opened("compare", real.MEASURED, **{"with": str(real.UNTRAINED)})
    assert "These are different models" not in words(alike)
    assert any("weights differ" in c.value for c in alike.caption)
    assert list(maps(alike)) == ["Share of what ran, B minus A, decoder"]


def test_same_groups_are_asked_of_two_models(opened: Opened) -> None:
    said = words(opened("compare", real.MEASURED, **{"with": str(real.UNTRAINED), "ask-grouping": "1"}))
    assert re.search(r"layer \d of run 0 and .*layer \d of run 4", said), said


def test_ablated_experts_are_on_their_page(opened: Opened) -> None:
    test = opened("ablation")
    assert "Of 2 sets of experts" in words(test)
    effects = maps(test)["Effect by domain, against the whole model"]
    assert {column for _, column in effects} == {"2.0", "2.3"}  # with their layer
    without = opened("experts", layer="layer 2", expert="3", more="without")
    assert "It was not ablated yet" not in words(without)


def test_every_example_answers(opened: Opened) -> None:
    from moescope.app.sql import desk

    nothing = {  # that the store of this kind of run holds
        real.MEASURED: {"Prompts against what was generated"},
        real.IMAGES: {"Experts by part of speech", "Least certain tokens", "What taking an expert away does"}
        | {"Tokens of one expert, by how much it prefers them"},
    }
    for run, empty in nothing.items():
        known = desk.examples(run)
        found = {name: len(opened("sql", run, sql=query).dataframe[0].value) for name, query in known.items()}
        assert {name for name, rows in found.items() if not rows} <= empty, found
    assert opened("sql", real.IMAGES).text_area[0].value == next(iter(desk.examples(real.IMAGES).values()))


def test_cells_with_several_rows_are_not_drawn(opened: Opened) -> None:
    query = "select layer, expert, share from label_load where run = 0"
    test = opened("sql", sql=query, show="chart", form="heatmap", x="layer", y="expert")
    assert "Several rows would share a cell" in words(test.button(key="sql-go").click().run())
