"""The live table of routing systems: every small model has its row, and what is missing or refused is said to be so."""

import sys
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from moescope.cli import main
from moescope.models import zoo
from moescope.proof import systems as table
from moescope.proof.systems import SYSTEMS, Row, systems
from moescope.proof.table import system_line


def test_every_small_model_has_a_row_and_every_row_a_source() -> None:
    named = {source.removeprefix("own:") for s in SYSTEMS for source in s.sources if source.startswith("own:")}
    assert named == set(zoo.names())
    assert [s.name for s in SYSTEMS if not s.sources] == ["HRM", "GPT-4, Gemini, PaLM"]
    assert len({s.name for s in SYSTEMS}) == len(SYSTEMS)


@pytest.mark.parametrize("name", zoo.names())
def test_small_models_are_themselves_each_time(name: str) -> None:
    """The same seed gives the same weights, another one others; the model knows its own example."""
    one, other, third = zoo.build(name), zoo.build(name), zoo.build(name, seed=1)
    states = [{n: t for n, t in m.state_dict().items() if torch.is_tensor(t)} for m in (one, other, third)]
    assert all(bool((a == states[1][n]).all()) for n, a in states[0].items())
    assert any(not bool((a == states[2][n]).all()) for n, a in states[0].items())
    assert zoo.example_of(one) is not None
    assert not any(module.training for module in one.modules())
    assert zoo.example_of(nn.Linear(2, 2)) is None


def test_a_row() -> None:
    (row,) = systems(["recursions"])
    assert row == Row(
        "Mixture-of-Recursions", "how often a token runs the block", ["depth"], ["own small model `mor`"], proved=True
    )
    assert system_line(row) == "proved  Mixture-of-Recursions: depth (own small model `mor`); how often a token runs the block"


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "st_moe_pytorch", None)
    (row,) = systems(["st-moe"])
    assert (row.proved, row.failed, row.missing) == (False, False, ["st-moe-pytorch"])
    assert system_line(row).startswith("NOT     ST-MoE: st-moe-pytorch is not installed here")
    assert CliRunner().invoke(main, ["families", "--systems", "st-moe"]).exit_code == 0


def test_one_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(*_: Any) -> tuple[nn.Module, dict[str, Any]]:
        return nn.Linear(2, 2), {}

    monkeypatch.setattr(table, "_built", plain)
    (row,) = systems(["shazeer"])
    assert (row.proved, row.failed) == (False, True)
    assert row.reason.startswith("own:shazeer: Linear has no router")
    assert CliRunner().invoke(main, ["families", "--systems", "shazeer"]).exit_code == 1


def test_what_cannot_be_proved_is_no_failure() -> None:
    found = CliRunner().invoke(main, ["families", "--systems", "gpt-4", "hrm"])
    assert (found.exit_code, [line[:8] for line in found.output.splitlines()]) == (0, ["-      H", "-      G"])


def test_a_name_that_is_none() -> None:
    found = CliRunner().invoke(main, ["families", "--systems", "nonesuch"])
    assert found.exit_code == 2
    assert "no system is called 'nonesuch'; there are Dense mixture (1991)" in found.output
