"""moescope analyze on the terminal: the verdict, a handful of rows, what to ask next, and how to get the rest."""

import json
import shlex
from pathlib import Path

import pytest
import synthetic
from click.testing import CliRunner

import moescope
from moescope import analyses
from moescope.cli import main


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of text, and a newer one of pictures, which has no words."""
    path = tmp_path_factory.mktemp("analyze") / "two runs.duckdb"
    synthetic.make(path, synthetic.specialist("code", 5), documents=12, tokens=20, layers=(0, 2), name="text")
    synthetic.make(path, documents=12, side=3, layers=(0, 2), label="class", name="pictures")
    return path


def said(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["analyze", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_handful_of_rows_carries_the_verdict(store: Path) -> None:
    answer = analyses.run("load", store, 0)
    lines = said("load", str(store), "--run", "0").splitlines()
    assert lines[:4] == ["", "Load and entropy, run 0", "", answer.verdict.sentence]
    assert lines[5].split("  ")[0] == "figure"
    rows = lines[6 : lines.index("", 6)]
    assert [row.startswith("normalized load entropy") for row in rows] == [True, True]
    rest = [line for line in lines if line.startswith("The rest: ")]
    figures = len(answer.frames["figures"])
    again = f"moescope analyze load {shlex.quote(str(store))} --run 0 --table"
    assert rest[0].startswith(f"The rest: {again} ({figures} figures); with --json also the SQL, experts (16 rows)")


@pytest.mark.parametrize("run", ["1"])
def test_what_to_ask_next_can_be_asked(store: Path, run: str) -> None:
    (line,) = [line for line in said("load", str(store), "--run", run).splitlines() if line.startswith("Next: ")]
    asked = shlex.split(line.removeprefix("Next:"))
    assert asked == ["moescope", "analyze", "specialization", str(store), "--run", run]
    assert said(*asked[2:])


def test_the_whole_table_has_every_figure(store: Path) -> None:
    lines = said("load", str(store), "--run", "0", "--table").splitlines()
    figures = analyses.run("load", store, 0).frames["figures"]
    at = next(i for i, line in enumerate(lines) if line.split()[:2] == ["name", "estimator"])
    notes = [line for line in lines if line.startswith("* ")]
    assert len(lines) - at - 1 - len(notes) == len(figures)


def test_json_has_the_verdict_and_its_rows(store: Path) -> None:
    found = json.loads(said("load", str(store), "--run", "0", "--json"))
    answer = analyses.run("load", store, 0)
    assert found["verdict"]["sentence"] == answer.verdict.sentence
    assert [row["value"] for row in found["verdict"]["rows"]] == answer.verdict.rows["value"].tolist()
    assert found["verdict"]["ask"] == f"moescope analyze specialization {shlex.quote(str(store))} --run 0"
    assert len(found["frames"]["figures"]) == len(answer.frames["figures"])


def test_the_newest_run_that_can_answer_is_asked_and_said(store: Path) -> None:
    """The pictures are newer, but hold no words; the option names a label that only they have."""
    assert said("importance", str(store)).splitlines()[1:3] == [
        "Expert importance, run 1",
        "2 runs are in the store; this is run 1 (pictures), the newest that can answer. There is also run 0 (text).",
    ]
    path = said("path_probe", str(store)).splitlines()
    assert path[1:3] == [
        "Path to part of speech, run 0",
        "2 runs are in the store; this is run 0 (text), the newest that can answer. Run 1 (pictures) cannot: run 1 holds no "
        "text tokens (images have none).",
    ]
    with moescope.open(store) as opened:
        assert [analyses.run("load", opened, by=label).run for label in ("domain", "class")] == [0, 1]


def test_where_no_run_can_answer_the_newest_says_why(store: Path) -> None:
    done = CliRunner().invoke(main, ["analyze", "depth", str(store)])
    assert done.exit_code == 1
    assert "no router of run 1 decides about depth" in done.output
    done = CliRunner().invoke(main, ["analyze", "depth", str(store), "--run", "0"])
    assert "no router of run 0 decides about depth" in done.output
