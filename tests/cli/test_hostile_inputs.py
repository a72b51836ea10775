"""Every bad input ends in one true sentence, exit code 1 or 2, nothing changed, nothing hanging, whatever the command.

Cases are made by rule (hostile.py, damage.py) for every command that the click group has, and run in an arena of forked
children. `MOESCOPE_FUZZ=2000` (make fuzz) sets how many cases a command gets; `MOESCOPE_FUZZ_SEED` where they start.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from arena import Arena
from fuzzing import wrong
from hostile import Case, commands, hostile, valid
from sampled import how_many

COUNT = int(os.environ.get("MOESCOPE_FUZZ", how_many(40, 6)))
SEED = os.environ.get("MOESCOPE_FUZZ_SEED", "0")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    running = Arena(tmp_path_factory.mktemp("arena"))
    yield running
    running.close()


def told(case: Case, outcome: object, what: str) -> str:
    return f"{what}: {case.args} {case.edits}\n{outcome}"


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", commands())
def test_what_hostile_cases_are_made_from_is_accepted(arena: Arena, name: str) -> None:
    """Else every case would be refused for one and the same reason."""
    for number in range(how_many(3, 1)):
        case = Case(valid(name, Random(f"{name} {number}"))[0])
        outcome = arena.run(case)
        assert outcome.code == 0 or "checkpoint" in case.args or name in ("ablate", "serve vllm"), told(
            case, outcome, "refused"
        )


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", commands())
def test_one_sentence_whatever_is_given(arena: Arena, name: str) -> None:
    found = []
    for number in range(COUNT if COUNT > 40 or name != "families" else 3):  # one of which proves all families
        case = replace(hostile(name, Random(f"{name} {SEED} {number}")), real=number % 200 == 0)
        outcome = arena.run(case)
        if what := wrong(case, outcome):
            found.append(told(case, outcome, f"case {number}: {what}"))
    assert not found, f"{len(found)} of {COUNT} cases\n" + "\n\n".join(found[:20])


def traced(model: str, data: str, *edit: str) -> Case:
    return Case(["trace", model, "--data", data, "--store", "new.duckdb"], [(*edit, 0)] if edit else [])  # type: ignore[list-item]


def checked(file: str, rule: str) -> Case:
    return Case(["check", file.partition("/")[0]], [(file, rule, 0)])


BOMBS = {
    "layers": Case(["trace", "model", "--data", "data.txt", "--store", "new.duckdb", "--layers", "0-999999999999"]),
    "experts": Case(["ablate", "model", "--store", "run.duckdb", "--experts", "0:0-999999999999"]),
    "pipe as data": traced("model", "fifo"),
    "pipe as store": Case(["info", "fifo"]),
    "pipe as a model's file": checked("model/config.json", "fifo"),
    "pipe as weights": checked("model/model.safetensors", "fifo"),
    "device": traced("model", "/dev/zero"),
    "the whole system": traced("model", "/"),
    "processes": traced("model", "/proc"),
    "layers of a model": checked("model/config.json", "set:num_hidden_layers:10000000"),
    "experts of a model": checked("model/config.json", "set:num_local_experts:1000000000"),
    "vocabulary of a model": checked("model/config.json", "set:vocab_size:1000000000"),
    "width of a model": checked("model/config.json", "set:hidden_size:1000000000"),
    "layers of a V-MoE": checked("vision/config.json", "set:encoder.num_layers:10000000"),
    "classes of a V-MoE": checked("vision/config.json", "set:num_classes:1000000000000"),
    "array that promises": traced("model", "data.npz", "data.npz", "promise"),
    "ids beyond": traced("model", "data.npz", "data.npz", "beyond"),
    "text of a terabyte": traced("model", "data.txt", "data.txt", "sparse"),
    "lines of a terabyte": traced("model", "data.jsonl", "data.jsonl", "sparse"),
    "table of a terabyte": traced("model", "data.csv", "data.csv", "sparse"),
    "image of 3.6 gigapixels": traced("vision", "images", "images/no/0.png", "pixels"),
    "nested": traced("model", "data.jsonl", "data.jsonl", "nested"),
    "nested configuration": checked("model/config.json", "nested"),
    "nested tokenizer": traced("model", "data.txt", "model/tokenizer.json", "nested"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_grows_or_waits_without_bound(arena: Arena, name: str) -> None:
    outcome = arena.run(BOMBS[name])
    assert (outcome.code in (1, 2), wrong(BOMBS[name], outcome), outcome.seconds < 30) == (True, "", True), outcome
    assert outcome.bytes < 2 << 30, outcome


PICKLES = ["model/model.safetensors", "sharded/INDEXED", "vision/model.safetensors", "data.npz",
           "model/tokenizer.json", "model/config.json",
           "data.parquet", "data.jsonl", "saved/data-00000-of-00001.arrow", "saved/state.json", "checkpoint.index",
           "run.duckdb"]  # fmt: skip


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("archive", [False, True], ids=["plain", "archive"])
def test_nothing_is_unpickled_whatever_its_name(arena: Arena, name: str, archive: bool) -> None:
    folder = name.partition("/")[0].partition(".")[0]
    model = folder if folder in ("model", "sharded", "vision", "checkpoint") else "model"
    data = (
        name.partition("/")[0]
        if name.startswith(("data", "saved"))
        else "images"
        if model in ("vision", "checkpoint")
        else "data.txt"
    )
    case = Case(["trace", model, "--data", data, "--store", "run.duckdb"], [(name, "pickle", int(archive))])
    outcome = arena.run(case)
    assert (outcome.code in (1, 2), wrong(case, outcome)) == (True, ""), outcome


def test_an_index_that_names_a_pickle(arena: Arena) -> None:
    case = checked("sharded/INDEXED", "as w.bin")
    outcome = arena.run(case)
    assert (outcome.code, wrong(case, outcome)) == (1, "")
    assert "are pickled (w.bin), which can run code" in outcome.err


@pytest.mark.parametrize("weights", ["../w.safetensors", "/etc/passwd", "", "missing.safetensors"])
def test_an_index_that_leads_elsewhere(arena: Arena, weights: str) -> None:
    case = Case(["check", "sharded"], [("sharded/model.safetensors.index.json", f"names:{weights}", 0)])
    outcome = arena.run(case)
    assert (outcome.code, wrong(case, outcome)) == (1, "")


@pytest.mark.parametrize(
    "asked", [[], ["--experts", "99:0"], ["--experts", "0:99"], ["--experts", "encoder.0:0", "--sweep"]], ids=" ".join
)
def test_nothing_is_traced_for_experts_that_are_not_there(arena: Arena, asked: list[str]) -> None:
    case = Case(["ablate", "model", "--store", "new.duckdb", "--data", "data.txt", *asked])
    outcome = arena.run(case)
    assert (outcome.code, outcome.changed, wrong(case, outcome)) == (2, [], ""), outcome
