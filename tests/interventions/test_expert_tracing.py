"""Causal tracing of expert updates: who brings the word back, corruption by noise and by another prompt, files of cases."""

import json
from pathlib import Path
from typing import Any

import pytest
from planted import planted, texts

import moescope
from moescope import analyses
from moescope.errors import InputError
from moescope.interventions import experiments
from moescope.models.loading import Loaded


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Path]:
    loaded, store = Loaded("planted", planted()), tmp_path_factory.mktemp("traced") / "p.duckdb"
    moescope.trace(loaded, texts(1), store)
    return loaded, store


def pairs(path: Path, count: int = 8, **more: Any) -> str:
    """Prompts of domain a whose last word decides the next one; corrupted by a word of domain b in its place."""
    lines = []
    for n in range(count):
        word = 4 + n % 7
        lines.append({"prompt": [4, 5, word], "true": word + 1, "foil": 40, "corrupted": [4, 5, 13]} | more)
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_the_expert_that_knows_brings_the_word_back(traced: Any, tmp_path: Path) -> None:
    loaded, store = traced
    experiments.experiment("tracing", loaded, store, cases=pairs(tmp_path / "c.jsonl"), positions="all")
    answer = analyses.run("tracing", store)
    layer = answer.figures("rescue by the layer (logits)").set_index("subset")["value"]
    expert = answer.figures("rescue by an expert's update (logits)").set_index(["expert", "subset"])["value"]
    assert layer[""] > 1
    assert expert[0, ""] == pytest.approx(layer[""], abs=1e-4)  # top-1: the block's update is its expert's
    assert abs(layer["position -2"]) < 1e-5  # attention gives nothing
    assert answer.figures("rescue by the layer (logits)").set_index("subset")["q"][""] <= 0.05
    assert answer.notes[-1] == "8 of 8 cases had the margin and the drop that were asked for."


def test_noise_on_the_subject_corrupts_and_the_whole_update_of_every_layer_restores(traced: Any, tmp_path: Path) -> None:
    loaded, store = traced
    path = pairs(tmp_path / "c.jsonl", subject=[2])
    lines = [{k: v for k, v in json.loads(line).items() if k != "corrupted"} for line in Path(path).read_text().splitlines()]
    Path(path).write_text("\n".join(map(json.dumps, lines)))
    figures = experiments.experiment("tracing", loaded, store, cases=path, noise=8.0).figures
    rescue = figures[figures["name"] == "rescue by the layer (logits)"].iloc[0]
    assert rescue["value"] > 0
    assert rescue["units"] >= 1


def test_cases_that_cannot_be_used_are_refused_with_their_line(traced: Any, tmp_path: Path) -> None:
    loaded, store = traced
    for more, words in (
        ({"corrupted": [4, 5]}, "line 1 of .*the prompts have 3 and 2 tokens"),
        ({"prompt": "Paris is in"}, "without a tokenizer"),
        ({"true": None}, "line 1 of .* is no case"),
        ({"true": 40}, "none of 1 cases .* has a margin"),
    ):
        with pytest.raises(InputError, match=words):
            experiments.experiment("tracing", loaded, store, cases=pairs(tmp_path / "c.jsonl", 1, **more))
    with pytest.raises(InputError, match="there is no file"):
        experiments.experiment("tracing", loaded, store, cases=str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="tracing needs the option 'cases'"):
        experiments.experiment("tracing", loaded, store)
