"""Transformers' own common tests, and runs of our own in step, under a Tracer: nothing may differ.

Over six families; MOESCOPE_ALL=1 adds four. The common tests come with pip when these run (common_sdist.py). One that fails
without moescope says nothing and is passed by.
"""

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import common_rows
import common_runs
import common_sdist
import common_suite
import pytest
import torch
from recount import listening
from small import ids, mixtral

import moescope
from moescope.models import tiny

FAMILIES = ["mixtral", "deepseek_v3", "gpt_oss", "llama4_text", "jamba", "switch_transformers"]
FAMILIES += ["dbrx", "nllb-moe", "jetmoe", "doge"] if os.environ.get("MOESCOPE_ALL") else []

KNOWN: dict[str, tuple[str, ...]] = {
    "common": (),
    "step": (),
    "copies": (),
    "graphs": (),
}
"""What is known to be wrong, as "family/what", by test: to be emptied. What is here and is right again fails too."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def suite(request: pytest.FixtureRequest) -> None:
    """Transformers' own tests are here, and the names of their marks are known."""
    for name in common_sdist.marks():
        request.config.addinivalue_line("markers", f"{name}: of Transformers' own tests")
    common_sdist.common()


def _judge(test: str, family: str, wrong: Mapping[str, Any]) -> None:
    known = [name for name in KNOWN[test] if fnmatch(family, name.partition("/")[0])]
    new = {what: why for what, why in wrong.items() if why and not any(fnmatch(f"{family}/{what}", name) for name in known)}
    assert new == {}
    mended = [name for name in known if not any(why and fnmatch(f"{family}/{what}", name) for what, why in wrong.items())]
    assert mended == [], "known to be wrong, and right: take them out of KNOWN"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("suite")
@pytest.mark.sampled(1)
def test_common_tests_pass_as_they_do_untraced(family: str, tmp_path: Path) -> None:
    """Each common test in which a routed model runs: passed under a Tracer, or failed without one too; rows as heard."""
    wrong, ran = {}, 0
    for test in common_suite.tests():
        folder = tmp_path / test
        folder.mkdir()
        told = common_suite.outcome(family, test, folder)
        ran += told.models > 0
        if told.models and told.word != "passed" and common_suite.outcome(family, test).word == "passed":
            wrong[test] = told.why.strip().splitlines()[-1]
    _judge("common", family, wrong)
    assert ran > 10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.sampled(2)
def test_runs_in_step(family: str, tmp_path: Path) -> None:
    """Outputs, gradients, weights, state and random numbers bit for bit; rows as independent hooks heard them."""
    plain, traced = (_model(family) for _ in range(2))
    inputs, before = tiny.build(family).inputs, common_runs.state(traced)
    wrong: dict[str, list[str]] = {}
    names: list[str] = []  # the step of every forward
    with listening(plain) as heard, moescope.Tracer(traced, tmp_path / "run.duckdb"):
        wrong["attach"] = common_runs.differences(before, common_runs.state(traced))
        for name, step in common_runs.steps().items():
            theirs, ours = common_runs.run(step, plain, inputs), common_runs.run(step, traced, inputs)
            wrong[name] = common_runs.differences(theirs.answers, ours.answers)
            wrong[name] += [f"{ours.failed}, not {theirs.failed}"] if ours.failed != theirs.failed else []
            names += [name] * (len(heard) - len(names))
    assert common_suite.left(traced) == []
    with moescope.open(tmp_path / "run.duckdb") as store:
        stored = common_rows.of_store(store)
    assert len(stored) == len(heard)
    for number, (name, one, rows) in enumerate(zip(names, heard, stored)):
        wrong[name] += [f"forward {number}: {what}" for what in common_rows.differences(one, rows)]
    _judge("step", family, wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_copies_are_models_of_their_own(family: str, tmp_path: Path) -> None:
    """A copy made inside the block answers as a copy of an untraced model, has no hook, and nothing of it is recorded."""
    plain, traced = (_model(family) for _ in range(2))
    inputs = tiny.build(family).inputs
    wrong: dict[str, Any] = {}
    with moescope.Tracer(traced, tmp_path / "run.duckdb"), torch.no_grad():
        traced(**inputs)
        for name, make in common_runs.copies().items():
            theirs = [common_runs.bits(t) for t in common_runs.tensors(make(plain)(**inputs))]
            try:
                copied = make(traced)
                same = theirs == [common_runs.bits(t) for t in common_runs.tensors(copied(**inputs))]
                wrong[name] = common_suite.left(copied) or ("" if same else "another answer")
            except Exception as error:
                wrong[name] = f"{type(error).__name__}: {error}"
    with moescope.open(tmp_path / "run.duckdb") as store:
        wrong["forwards"] = store.rows("select count(*) from forwards having count(*) > 1")
    _judge("copies", family, wrong)


def test_graphs(tmp_path: Path) -> None:
    """A model made into a graph inside the block gives the same answer, or is refused by name; the run goes on."""
    inputs, wrong = {"input_ids": ids(), "use_cache": False}, {}
    for name, make in common_runs.graphs().items():
        traced, theirs = mixtral(1), common_runs.run(make, mixtral(1), inputs)
        assert theirs.failed == ""
        try:
            with moescope.Tracer(traced, tmp_path / f"{name}.duckdb"), torch.no_grad():
                traced(**inputs)
                ours = common_runs.run(make, traced, inputs)
                refused = name == "whole graph" and "cannot be part of a full graph" in ours.failed
                wrong[name] = "" if refused else ours.failed or common_runs.differences(theirs.answers, ours.answers)
                traced(**inputs)
            wrong[name] = wrong[name] or common_suite.left(traced)
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    _judge("graphs", "mixtral", wrong)


def _model(family: str) -> Any:
    model: Any = tiny.build(family).model
    model.set_attn_implementation("eager")
    model.generation_config.eos_token_id = model.config.eos_token_id = None  # all texts go on to the end
    if model.config.is_encoder_decoder:
        model.generation_config.decoder_start_token_id = 0
    return model
