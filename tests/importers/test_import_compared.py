"""An engine's run beside a trace of the same texts; the pages of runs that lack something."""

import json
from pathlib import Path
from typing import Any

import captures
import numpy as np
import planted
import pytest
from click.testing import CliRunner
from streamlit.testing.v1 import AppTest

import moescope
from moescope import analyses, errors
from moescope.cli import main
from moescope.inputs import Dataset, Example

MAIN = Path(moescope.__file__).parent / "app" / "main.py"
CHANGED = [(0, 3, 1), (2, 5, 0), (2, 6, 0)]  # sequence, position, layer


def _texts() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(4, 36, n) for n in (9, 12, 15, 11, 10)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 0: a trace of a tiny Mixtral; run 1: what an engine gave for the same texts, three decisions of it changed."""
    folder = tmp_path_factory.mktemp("both")
    examples = [Example("texts", row, f"d{row}", input_ids=ids) for row, ids in enumerate(_texts())]
    moescope.trace(planted.mixtral(k=2, layers=2), Dataset("texts", "x", "text", examples), folder / "a.duckdb", batch_size=2)
    made = captures.Served(planted.EXPERTS, 2, 2, family="mixtral")
    with moescope.open(folder / "a.duckdb") as store:
        for row, ids in enumerate(_texts()):
            found = store.rows(
                "select expert from assignments join tokens using (token) join routers r using (router) join sequences s "
                f"using (sequence) where source_row = {row} order by position, r.layer, rank"
            )
            experts = np.array(found, np.int32).reshape(len(ids), 2, 2)[:-1]
            for sequence, position, layer in CHANGED:
                if sequence == row:
                    own = experts[position, layer]
                    own[1] = next(e for e in range(planted.EXPERTS) if e not in own)
            made.sequences.append(captures.Sequence(ids[:5], ids[5:], experts, np.zeros(0)))
    file = captures.lines(folder / "served.jsonl", captures.vllm(made))
    moescope.import_vllm(file, folder / "a.duckdb", model=made.saved(folder))
    moescope.import_vllm(file, folder / "b.duckdb", model=folder / "config.json")
    return folder / "a.duckdb"


def _expected(answer: analyses.Answer) -> None:
    sets = answer.figures("set changed", subset="")
    total = sum(len(ids) - 1 for ids in _texts())
    assert sets[["layer", "n"]].to_numpy().tolist() == [[0, total], [1, total]]
    assert [round(v * total) for v in sets["value"]] == [2, 1]
    found = answer.frames["decisions"]
    assert sorted(zip(found["position"], found["layer"])) == sorted((p, layer) for _, p, layer in CHANGED)
    assert found["margin"].notna().all()
    assert list(found["margin"]) == sorted(found["margin"], reverse=True)
    assert any("matched by their ids" in note for note in answer.notes)


def test_diff_says_which_decisions_changed_and_how_near_the_edge(both: Path) -> None:
    _expected(analyses.run("diff", both, 1))
    _expected(analyses.run("diff", both, 1, other=0))
    _expected(analyses.run("diff", both.with_name("b.duckdb"), 0, beside=str(both), other=0))
    assert len(analyses.run("diff", both, 1).figures("set changed by margin")) == 10


def test_grouping_finds_the_trace_by_its_ids(both: Path) -> None:
    answer = analyses.run("grouping", both, 1)
    assert {subset.rpartition(" ")[2] for subset in answer.frames["figures"]["subset"]} == {"0"}


def test_the_command_takes_one_store_or_two(both: Path) -> None:
    for asked in ([str(both), "--run", "1"], [str(both.with_name("b.duckdb")), str(both), "--other", "0"]):
        done = CliRunner().invoke(main, ["diff", *asked], standalone_mode=False)
        assert done.exception is None
        assert "another set of experts was chosen in" in done.stdout
        assert "changed decisions, the surest first" in done.stdout
    found = json.loads(CliRunner().invoke(main, ["diff", str(both), "--run", "1", "--json"]).stdout)
    assert len(found["frames"]["decisions"] if "frames" in found else found["decisions"]) == 3


def test_runs_of_other_texts_share_no_token(both: Path, tmp_path: Path) -> None:
    made = captures.served(4, 2, 2, n=4, seed=9)
    made.family = "mixtral"
    file = captures.lines(tmp_path / "other.jsonl", captures.vllm(made))
    moescope.import_vllm(file, tmp_path / "c.duckdb", model=made.saved(tmp_path))
    with pytest.raises(errors.AnalysisError, match="share no token"):
        analyses.run("diff", tmp_path / "c.duckdb", beside=str(both))


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 0: no weights, no ids; run 1: no ranks; run 2: counts."""
    folder = tmp_path_factory.mktemp("lacking")
    made = captures.served(16, 4, 3, n=6)
    model = made.saved(folder)
    moescope.import_sglang(captures.lines(folder / "a.jsonl", captures.sglang(made)), folder / "a.duckdb", model=model)
    captures.megatron(folder / "trace", made, ascending=True)
    moescope.import_megatron(folder / "trace", folder / "a.duckdb", model=model)
    (folder / "c.csv").write_text("layer,expert\n" + "".join(f"{n % 3},{n % 16}\n" for n in range(200)))
    moescope.import_llamacpp(folder / "c.csv", folder / "a.duckdb", model=model)
    return folder / "a.duckdb"


LOOKS = [
    (0, "experts"),
    (0, "meaning"),
    (1, "structure"),
    (1, "compare"),
    (1, "tokens"),
    (2, "runs"),
    (2, "load"),
    (2, "structure"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("run", "view"), LOOKS)
def test_pages_say_what_a_capture_lacks(view: str, run: int, lacking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(lacking))
    test = AppTest.from_file(str(MAIN), default_timeout=120)
    test.query_params.update({"run": str(run)})
    page = test.switch_page(f"views/{view}.py").run()
    assert not page.exception
    beside = " ".join(caption.value for caption in page.sidebar.caption)
    assert {0: "routing weights", 1: "order of experts", 2: "counts of experts alone"}[run] in beside
    assert [error.value for error in page.error] == []


def test_every_analysis_answers_or_refuses_in_a_sentence(lacking: Path) -> None:
    with moescope.open(lacking) as store:
        answered = dict(analyses.run_all(store, 1))
    refused = {name: str(why) for name, why in answered.items() if isinstance(why, errors.AnalysisError)}
    assert {"load", "structure", "importance"} <= answered.keys() - refused.keys()
    for answer in answered.values():
        if isinstance(answer, analyses.Answer):
            assert any("was imported from" in note for note in answer.notes)
    assert "without ranks" in refused["path_probe"]


@pytest.mark.slow
def test_a_report_is_written_of_them(lacking: Path, tmp_path: Path) -> None:
    asked = ["report", str(lacking), "--run", "1", "-o", str(tmp_path / "a.html")]
    done = CliRunner().invoke(main, asked, standalone_mode=False)
    assert done.exception is None
    assert "imported from megatron" in (tmp_path / "a.html").read_text()
