"""The Ablation page and training curves of the dashboard: what a store holds is shown, and only shipped things are run."""

import os
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import synthetic_app
from streamlit.testing.v1 import AppTest
from synthetic_effects import add_effects

APP = Path(__file__).parents[2] / "moescope" / "app"

from moescope.app.parts.ablation import ablation_run  # noqa: E402
from moescope.app.parts.pickers import Layer  # noqa: E402
from moescope.app.queries import effects  # noqa: E402

CURVES = tuple(f"training-{name}" for name in ("load_entropy", "max_violation", "balance_switch", "z_loss"))
LAYER = Layer("layer 2", 2, 2, "decoder", 8, 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every expert of layers 1 and 2 ablated, and with thirty steps of training."""
    path = tmp_path_factory.mktemp("ablated") / "ablated.duckdb"
    synthetic_app.text_run(path, "mixtral", documents=3)
    add_effects(path)
    os.environ["MOESCOPE_STORE"] = str(path)
    return path


def opened(store: Path, view: str, monkeypatch: pytest.MonkeyPatch, show: tuple[str, ...] = (), **query: str) -> AppTest:
    """A page, with the panels named in `show` showing their SQL."""
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    test = AppTest.from_file(str(APP / "main.py"), default_timeout=120)
    test.query_params.update(query)
    for name in show:
        test.session_state[f"files-{name}"] = True
    test.switch_page(f"views/{view}.py")
    test.run()
    assert not test.exception
    assert [e.value for e in test.error] == []
    return test


@pytest.mark.slow
def test_effects_and_curves_are_shown(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [({}, "none", "load"), ({"in": "layer 2", "control": "load", "use": "gate_mass"}, "load", "gate_mass")]
    for query, control, use in states:
        panels = ("effects", "beyond", f"by-domain-{control}", f"against-{use}", "effects-table")
        test = opened(store, "ablation", monkeypatch, panels, effects="true", **query)
        assert sum("ablation_effects" in c.value for c in test.code) == 5, query
    assert opened(store, "ablation", monkeypatch, mode="mean").selectbox(key="box-mode").value == "zero"
    assert (
        opened(store, "experts", monkeypatch, layer="layer 2", expert="3", more="without").selectbox(key="box-mode").value
        == "zero"
    )
    assert curves(opened(store, "load", monkeypatch, CURVES)) == 4
    synthetic_app.text_run(tmp_path / "plain.duckdb", "mixtral", documents=1)
    assert curves(opened(tmp_path / "plain.duckdb", "load", monkeypatch, CURVES)) == 0


@pytest.mark.slow
def test_evaluations_have_curves_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and every evaluation stand in tabs of their own; each curve's SQL says of which it is."""
    synthetic_app.text_run(tmp_path / "a.duckdb", "mixtral", documents=1)
    health = [
        {"run": 0, "router": r, "name": name, "subset": f"{part}step {step}", "value": 0.5, "n": 9}
        for part, steps in (("", range(1, 9)), ("eval ", (4, 8)), ("eval_b ", (8,)))
        for r in range(2) for name in ("load_entropy", "max_violation") for step in steps
    ]  # fmt: skip
    with duckdb.connect(str(tmp_path / "a.duckdb")) as con:
        con.register("found", pd.DataFrame(health))
        con.execute("insert into measures by name from found")
    figures = [f"{part}-{name}" for part in ("training", "eval", "eval_b") for name in ("load_entropy", "max_violation")]
    test = opened(tmp_path / "a.duckdb", "load", monkeypatch, figures)
    assert [tab.label for tab in test.tabs][-3:] == ["Training", "Evaluation: eval", "Evaluation: eval_b"]
    assert curves(test) == 6


def curves(test: AppTest) -> int:
    return sum("from training" in c.value for c in test.code)


def test_rank_correlation_and_names() -> None:
    x = pd.Series([1.0, 2, 3, 4, 5, 6])
    assert effects.rank_correlation(x, x**3)[0] == pytest.approx(1)
    assert effects.rank_correlation(x, pd.Series([6.0, 5, 4, 3, 2, 1]))[:2] == pytest.approx((-1, -1))
    assert effects.rank_correlation(x, pd.Series([1.0] * 6))[0] != effects.rank_correlation(x, pd.Series([1.0] * 6))[0]  # NaN
    columns = ["router", "stack", "layer", "expert", "experts"]
    rows = [
        (0, "decoder", 3, 7, '{"a": [7]}'),
        (1, "decoder", 12, 40, '{"b": [40]}'),
        (1, "decoder", 12, None, '{"b": [4, 5]}'),
    ]
    assert effects.names(pd.DataFrame(rows, columns=columns)) == ["03.07", "12.40", "12.04+05"]
    assert effects.names(pd.DataFrame(rows[:1], columns=columns)) == ["3.7"]
    two = [(0, "decoder", 3, 7, '{"a": [7]}', "attention"), (1, "decoder", 3, 7, '{"b": [7]}', "ffn")]
    assert effects.names(pd.DataFrame(two, columns=[*columns, "block_type"])) == ["3 attention 7", "3 ffn 7"]


def a_run(**other: Any) -> dict[str, Any]:
    return {"run": 0, "model_name": "mixtral", "dataset": "text", "status": "complete", "overrides": "{}"} | other


@pytest.mark.parametrize(
    ("run", "address", "words"),
    [
        (a_run(), "127.0.0.1", ""),
        (a_run(), "0.0.0.0", "open to other machines"),
        (a_run(), None, "open to other machines"),
        (a_run(model_name="someone/else"), "127.0.0.1", "Only shipped models"),
        (a_run(model_name="../mixtral"), "127.0.0.1", "Only shipped models"),
        (a_run(dataset="--help"), "127.0.0.1", "Only shipped data"),
        (a_run(status="interrupted"), "127.0.0.1", "Only a complete run"),
        (a_run(overrides='{"top_k": 1}'), "127.0.0.1", "Only a complete run"),
    ],
)
def test_only_shipped_things_are_run(store: Path, run: dict[str, Any], address: str | None, words: str) -> None:
    said = ablation_run.refusal(run, address)
    assert words in said
    assert bool(words) == bool(said)


def test_commands_are_lists_of_known_words(store: Path) -> None:
    same = ["ablate", "mixtral", "--data", "text", "--store", str(store), "--mode", "zero", "--experts", "decoder.2:1,5"]
    same += ["--controls", "2"]
    assert ablation_run.steps(a_run(), LAYER, [5, 1], "zero", True, ["domain"], 0) == [
        [*same, "--sweep", "--by", "domain", "--run", "0"]
    ]
    trace = ["trace", "mixtral", "--data", "text", "--limit", "8", "--store", str(store), "--name", "8 examples, for ablation"]
    assert ablation_run.steps(a_run(), LAYER, [1, 5], "zero", False, [], 8) == [trace, same]


def test_job_that_fails_says_why_and_never_blocks(tmp_path: Path) -> None:
    job = ablation_run.Job([["sql", str(tmp_path / "none.duckdb"), "select 1"], ["info", "x"]], 0, "mixtral")
    job._work()
    assert (job.status, job.at) == ("failed", 0)
    assert "none.duckdb" in job.said()
