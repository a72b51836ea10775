"""Every page of the dashboard, found by its folder, over several stores, without a browser (Streamlit's AppTest)."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import synthetic_app
from said import faults
from streamlit.testing.v1 import AppTest

from moescope.store import RunWriter

MAIN = Path(__file__).parents[2] / "moescope" / "app" / "main.py"
PAGES = sorted(path.stem for path in (MAIN.parent / "views").glob("[a-z]*.py"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    made = {"demo": synthetic_app.demo(folder / "demo.duckdb"), "hostile": synthetic_app.hostile(folder / "hostile.duckdb")}
    RunWriter.create(folder / "empty.duckdb", synthetic_app.head("x", {"decoder": 1}, 4, 2, "mixtral")).discard()
    synthetic_app.text_run(folder / "growing.duckdb", "growing", documents=2, finish=False)
    synthetic_app.text_run(folder / "small.duckdb", "small", documents=1)
    made["recursive"] = synthetic_app.recursive(folder / "recursive.duckdb")
    return made | {name: folder / f"{name}.duckdb" for name in ("empty", "growing", "small")}


def opened(store: Path, view: str, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    test = AppTest.from_file(str(MAIN), default_timeout=120)
    test.query_params.update(query)
    test.switch_page(f"views/{view}.py")
    return test.run()


def told(test: AppTest) -> list[str]:
    return [e.value for e in test.error]


LOOKS = [(view, name) for name in ("demo", "hostile", "empty", "recursive") for view in PAGES] + [
    (view, name) for name in ("growing", "small") for view in ("runs", "tokens", "load", "ablation", "compare")
]


@pytest.mark.slow
@pytest.mark.parametrize(("view", "name"), LOOKS)
@pytest.mark.sampled(9)
def test_page_shows_no_error(view: str, name: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """And says nothing that only a program says."""
    test = opened(stores[name], view, monkeypatch)
    assert not test.exception
    assert told(test) == []
    assert name == "hostile" or faults(test) == []


@pytest.mark.parametrize("view", [view for view in PAGES if view not in ("dimensionality", "sql", "try_it")])
def test_page_says_that_a_model_has_no_router(view: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    said = " ".join(m.value for m in opened(stores["recursive"], view, monkeypatch).get("html") if isinstance(m.value, str))
    assert "The model of this run has no router" in said


@pytest.mark.slow
@pytest.mark.parametrize("run", ["2", "3"])
@pytest.mark.parametrize("view", PAGES)
@pytest.mark.sampled(10)
def test_page_shows_every_kind_of_run(view: str, run: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["demo"], view, monkeypatch, run=run)
    assert not test.exception
    assert told(test) == []
    assert faults(test) == []
    assert test.selectbox(key="box-run").value == int(run)


def test_url_chooses_run_layer_and_expert(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["demo"], "experts", monkeypatch, run="2", layer="encoder 1", expert="5")
    assert (test.selectbox(key="box-layer").value, test.selectbox(key="box-expert").value) == ("encoder 1", 5)
    test.selectbox(key="box-expert").set_value(6).run()
    assert test.query_params["expert"] == "6"
    assert test.query_params["layer"] == "encoder 1"


STATES = [
    ("load", {"split": split})
    for split in ("prompts", "generated tokens", "first token", "positions 1–15", "positions 16–")
] + [
    ("load", {"value": "dropped", "run": "3"}), ("load", {"value": "mean"}), ("load", {"domain": "domain=law"}),
    ("tokens", {"by": "expert", "expert": "3"}), ("tokens", {"by": "entropy"}), ("tokens", {"by": "margin", "run": "3"}),
    ("tokens", {"q": "token", "domain": "domain=code"}), ("tokens", {"token": "200"}), ("tokens", {"token": "9", "run": "2"}),
    ("tokens", {"q": "nothing like that"}), ("experts", {"find": "law"}), ("experts", {"find": "holder"}),
    ("experts", {"find": "zzz"}), ("experts", {"layer": "layer 5", "expert": "7"}), ("experts", {"more": "company"}),
    ("experts", {"more": "without"}), ("experts", {"more": "labels", "run": "3"}), ("tokens", {"numbers": "1", "run": "3"}),
    ("structure", {"follow": "2"}),
    ("structure", {"layer": "layer 5"}), ("structure", {"ask": "specialization"}), ("meaning", {"tint": "upos"}),
    ("meaning", {"question": "specialization"}), ("load", {"what-if": "1"}), ("load", {"what-if": "1", "run": "3"}),
    ("load", {"what-if": "1", "run": "2", "count": "unrouted"}), ("structure", {"ask-structure": "1"}),
    ("compare", {"with": "1", "ask-diff": "1"}), ("sql", {"show": "chart", "form": "heatmap"}), ("experts", {"word": "▁the"}),
    ("compare", {"run": "0", "with": "3"}), ("compare", {"run": "2", "with": "0"}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("view", "query"), STATES)
@pytest.mark.sampled(6)
def test_states_of_the_url(view: str, query: dict[str, str], stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["demo"], view, monkeypatch, **({"run": "0"} | query))
    assert not test.exception
    assert told(test) == []
    assert faults(test) == []


def test_the_newest_run_is_shown_unless_another_is_asked_for(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["demo"], "runs", monkeypatch)
    assert (test.selectbox(key="box-run").value, "run" in test.query_params) == (3, False)
    assert [option.split(" · ")[0] for option in test.selectbox(key="box-run").options] == ["3", "2", "1", "0"]
    assert opened(stores["demo"], "runs", monkeypatch, run="0").selectbox(key="box-run").value == 0


def test_url_nonsense_falls_back(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["demo"], "tokens", monkeypatch, run="99", layer="<script>", token="x", sequence="-1", by="nothing")
    assert not test.exception
    assert told(test) == []


def test_missing_store_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(tmp_path / "gone.duckdb", "runs", monkeypatch)
    assert len(told(test)) == 1
    assert "is not there" in told(test)[0]


def test_foreign_and_newer_stores_are_a_sentence(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.duckdb").write_text("no database")
    duckdb.connect(str(tmp_path / "other.duckdb")).close()
    shutil.copy(stores["small"], tmp_path / "newer.duckdb")
    with duckdb.connect(str(tmp_path / "newer.duckdb")) as con:
        con.execute("update meta set value = '999' where key = 'schema_version'")
    for name, words in (("text", "not a moescope store"), ("other", "no moescope store"), ("newer", "schema version 999")):
        test = opened(tmp_path / f"{name}.duckdb", "tokens", monkeypatch)
        assert not test.exception
        assert [words in e.replace("\\", "") for e in told(test)] == [True], (name, told(test))


LOCK = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def test_store_that_another_program_writes_is_a_sentence(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = shutil.copy(stores["small"], tmp_path / "held.duckdb")
    holder = subprocess.Popen([sys.executable, "-c", LOCK, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    test = opened(Path(store), "runs", monkeypatch)
    assert ["open for writing in another program" in e for e in told(test)] == [True]
    holder.communicate()
    test.run()
    assert (told(test), len(test.error)) == ([], 0)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select * from read_csv('/etc/passwd')", "file system operations are disabled"),
        ("copy (select 1) to '/tmp/x.csv'", "this page only reads"),
        ("create table x as select 1", "this page only reads"),
        ("set enable_external_access = true", "this page only reads"),
        ("attach '/tmp/x.duckdb'", "this page only reads"),
        ("select 1; select 2", "one query at a time"),
        ("selec 1", "not SQL that DuckDB understands"),
        ("select * from nowhere", "Table with name nowhere does not exist"),
        ("from glob('/*')", "file system operations are disabled"),
    ],
)
@pytest.mark.sampled(4)
def test_sql_page_refuses(query: str, words: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["growing"], "sql", monkeypatch, sql=query).button(key="sql-go").click().run()
    assert not test.exception
    assert [words.lower() in e.replace("\\", "").lower() for e in told(test)] == [True], told(test)


def test_sql_page_answers(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, runs in (("demo", 4), ("growing", 1)):
        test = opened(stores[name], "sql", monkeypatch, sql="select count(*) as runs from runs")
        test.button(key="sql-go").click().run()
        assert test.dataframe[0].value.to_dict("list") == {"runs": [runs]}


def test_query_of_a_link_waits(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["demo"], "sql", monkeypatch, sql="select 41 + 1 as answer", show="chart")
    assert test.text_area[0].value == "select 41 + 1 as answer"
    assert [len(test.dataframe), len(test.get("vega_lite_chart"))] == [1, 0]  # what the columns of a view mean
    test.button(key="sql-go").click().run()
    assert [m.value for m in test.caption if "row ×" in m.value] == ["1 row × 1 column"]
    test.text_area[0].set_value("select 43 as answer").run()
    assert [m.value for m in test.caption if "row ×" in m.value] == []


@pytest.mark.parametrize(
    ("view", "key", "module", "limit"),
    [("structure", "ask-structure", "answers", "BIG"), ("load", "what-if", "load.capacity", "SMALL")],
)
def test_link_does_not_compute_on_a_large_run(
    view: str, key: str, module: str, limit: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a small run answers at once waits, on a large one, for whoever follows the link."""
    opened(stores["demo"], view, monkeypatch, run="0")
    monkeypatch.setattr(sys.modules[f"moescope.app.parts.{module}"], limit, 0)
    test = opened(stores["demo"], view, monkeypatch, run="0", **{key: "1"})
    assert [b.key for b in test.button if b.key == f"go-{key}"] == [f"go-{key}"]
    test.button(key=f"go-{key}").click().run()
    assert [b.key for b in test.run().button if b.key == f"go-{key}"] == []
    assert told(test) == []


def test_store_that_is_replaced_is_read_again(tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "turns.duckdb"
    shutil.copy(stores["small"], store)
    test = opened(store, "sql", monkeypatch, sql="select count(*) as runs from runs").button(key="sql-go").click().run()
    assert test.dataframe[0].value.to_dict("list") == {"runs": [1]}
    synthetic_app.text_run(store, "another", documents=1)
    assert test.run().dataframe[0].value.to_dict("list") == {"runs": [2]}
    store.unlink()
    time.sleep(0.1)  # what was seen of the file just now is believed for half of that
    assert "is not there" in told(test.run())[0]
