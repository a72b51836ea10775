"""Specialization by a label of tokens: hand-counted rows, a planted role specialist that is found, chance that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told
from click.testing import CliRunner

import moescope
from moescope import analyses
from moescope.analyses import Answer
from moescope.cli import main
from moescope.errors import AnalysisError

BITS, SHARE = "I(label; expert) (bits)", "share of load by label"
ROLES = np.array(["system", "user", "user", "assistant", "assistant", "assistant", "template", "template"])
ROUTER = {"router": 0, "experts": 4, "top_k": 1, "score": "softmax"}


def asked(path: Path, **options: Any) -> Answer:
    with moescope.open(path) as store:
        return analyses.run("specialization", store, **options)


def test_rows_by_hand(tmp_path: Path) -> None:
    """Six documents: what the user says goes to expert 0; template by turns to 0 and 1."""
    chosen = np.array([[0, 0, 0, 1] * 3])[:, :, None]
    labels = {"role": np.array(["user", "template"] * 6)}
    routers = [{**ROUTER, "experts": 2}]
    path = told.written(tmp_path / "a.duckdb", routers, {0: chosen}, [], tokens=2, units=("text",), labels=labels)
    said = asked(path, by="role")
    bits = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5
    columns = ["name", "estimator", "expert", "subset", "value", "chance", "n", "units"]
    rows = said.frames["figures"][columns].astype(object).where(lambda f: f.notna(), None).values.tolist()
    wanted = [
        [BITS, "plug-in", None, "role", bits, 0, 12, 6],
        [SHARE, "definition", 0, "role=template", 0.5, 0.75, 6, 6],
        [SHARE, "definition", 1, "role=template", 0.5, 0.25, 6, 6],
        [SHARE, "definition", 0, "role=user", 1, 0.75, 6, 6],
        [SHARE, "definition", 1, "role=user", 0, 0.25, 6, 6],
        ["JSD (bits)", "pair", None, "role=template, user", bits, 0, 12, 6],
    ]
    mine = [row for row in rows if row[0] in (BITS, SHARE, "JSD (bits)") and row[1] != "less null mean"]
    assert mine == [pytest.approx(row) for row in wanted]


def world(path: Path, planted: bool, **labels: np.ndarray) -> Path:
    """24 documents with four roles and a taste of their own; planted: expert 1 is for the assistant."""
    rng = np.random.default_rng(3)
    chosen = np.stack([rng.choice(4, 8, p=p) for p in rng.dirichlet(np.full(4, 2.0), 24)]).reshape(1, -1, 1)
    if planted:
        chosen[0, np.tile(ROLES == "assistant", 24) & (np.arange(192) % 3 > 0), 0] = 1
    every = {"role": np.tile(ROLES, 24)} | labels
    return told.written(path, [ROUTER], {0: chosen}, [], tokens=8, units=("text",), labels=every)


@pytest.mark.parametrize(("planted", "by"), [(True, "role"), (False, "role"), (True, None)])
def test_a_planted_role_is_found_and_chance_is_not(tmp_path: Path, planted: bool, by: str | None) -> None:
    """Also without being asked for, where sequences have no labels."""
    said = asked(world(tmp_path / "a.duckdb", planted), by=by)
    row = said.figures(BITS, estimator="less null mean").iloc[0]
    assert (row["q"] <= 0.05) == planted
    best = said.frames["specialists"]
    assert (("role=assistant", 1) in set(zip(best["subset"], best["expert"]))) == planted
    assert planted or best.empty
    assert ("beyond chance" in said.reading) == planted
    assert "information of the label" in said.charts()


def test_a_kind_of_one_value_is_compared_with_the_other_tokens(tmp_path: Path) -> None:
    """Reasoning, of which most tokens are none."""
    thought = np.where(np.tile(ROLES == "assistant", 24) & (np.arange(192) % 3 > 0), "true", None)
    said = asked(world(tmp_path / "a.duckdb", True, reasoning=thought), by="reasoning")
    loads = said.figures(SHARE)
    assert set(loads["subset"]) == {"reasoning=true", "reasoning=none"}
    assert loads[(loads["subset"] == "reasoning=true") & (loads["expert"] == 1)]["value"].tolist() == [1.0]


def test_what_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no sequence of run 0 has a label 'nothing'"):
        asked(world(tmp_path / "a.duckdb", True), by="nothing")


def test_from_the_command_line(tmp_path: Path) -> None:
    path = world(tmp_path / "a.duckdb", True)
    done = CliRunner().invoke(main, ["analyze", "specialization", str(path), "-p", "by=role"])
    assert done.exit_code == 0, done.output
    assert "foremost expert 1 of layer 0 for assistant" in " ".join(done.output.split())
