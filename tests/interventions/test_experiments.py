"""Experiments with a live model: what is planted is found, what is alike is not, and analyses read what was kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import planted, texts, upcycled

import moescope
from moescope import analyses
from moescope.errors import AnalysisError, InputError
from moescope.interventions import experiments
from moescope.models.loading import Loaded


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Loaded, Path]]:
    folder, found = tmp_path_factory.mktemp("experiments"), {}
    for name, model in {"planted": planted(), "upcycled": upcycled()}.items():
        found[name] = Loaded(name, model), folder / f"{name}.duckdb"
        moescope.trace(found[name][0], texts(8), found[name][1], batch_size=32)
    return found


def made(stores: Any, which: str, name: str, **options: Any) -> Any:
    loaded, store = stores[which]
    experiments.experiment(name, loaded, store, **options)
    shows = {entry["name"]: entry["analysis"] for entry in experiments.catalogue()}
    return analyses.run(shows[name], store)


@pytest.mark.parametrize("entry", experiments.catalogue(), ids=lambda entry: entry["name"])
def test_every_experiment_says_what_it_asks_and_who_shows_it(entry: dict[str, Any]) -> None:
    assert entry["title"]
    assert entry["question"].endswith("?")
    assert len(entry["method"]) > 100
    assert entry["analysis"] in {a["name"] for a in analyses.catalogue()}


def test_a_router_that_is_needed_regrets_less_than_a_draw_and_one_that_is_not_does_not(stores: Any) -> None:
    answer = made(stores, "planted", "regret", tokens=32, alternatives=3)
    whole = answer.figures("regret (nats)", subset="").iloc[0]
    assert whole["value"] < whole["null_mean"]
    assert whole["q"] <= 0.05
    assert whole["ci_low"] <= whole["value"] <= whole["ci_high"]
    assert "In 1 of 1 layers the executed experts are better" in answer.reading
    tokens = answer.frames["tokens"]
    assert len(tokens) == 32
    assert tokens["regret"].is_monotonic_decreasing
    answer = made(stores, "upcycled", "regret", tokens=12, alternatives=4)
    whole = answer.figures("regret (nats)", subset="")
    assert whole["value"].max() < 1e-4
    assert not (whole["q"] <= 0.05).any()


def test_an_experiment_takes_the_place_of_the_one_before(stores: Any) -> None:
    loaded, store = stores["upcycled"]
    for tokens in (4, 3):
        experiments.experiment("regret", loaded, store, tokens=tokens, alternatives=2, layers="1")
    with moescope.open(store) as opened:
        rows = opened.rows("select layer, n, extra from measures where extra->>'experiment' = 'regret' and subset = ''")
    assert [(layer, n) for layer, n, _ in rows] == [(1, 3), (1, 3)]
    assert json.loads(rows[0][2])["null"].startswith("the executed set drawn evenly")


def test_refusals(stores: Any, tmp_path: Path) -> None:
    loaded, store = stores["planted"]
    for name, options, words in (
        ("dreams", {}, "there is no experiment 'dreams'; there are: "),
        ("regret", {"depth": 3}, "regret has no option 'depth'; it has: layers, tokens"),
        ("regret", {"tokens": 0}, "must be a whole number from 1"),
        ("regret", {"layers": "7"}, "no router in layer 7"),
    ):
        with pytest.raises(InputError, match=words):
            experiments.experiment(name, loaded, store, **options)
    other = tmp_path / "other.duckdb"
    moescope.trace(stores["upcycled"][0], texts(1), other)
    with pytest.raises(InputError, match="no complete run of this model"):
        experiments.experiment("regret", loaded, other)
    with pytest.raises(AnalysisError, match="moescope experiment regret MODEL"):
        analyses.run("regret", other)


def test_the_expert_that_says_the_next_word_writes_it_and_the_others_do_not(stores: Any) -> None:
    answer = made(stores, "planted", "writes")
    direct = answer.figures("direct attribution to the next token (logits)")
    each = direct[direct["expert"].notna()].set_index("expert")
    assert each.index[each["q"] <= 0.05].tolist() == [0]
    assert each["value"][0] >= each["ci_low"][0] > each["null_mean"][0]
    peaks = answer.figures("peak of the mean update (z)").set_index("expert")
    assert answer.frames["dictionary"].iloc[0]["expert"] == 0
    words = {int(w) for w in answer.frames["dictionary"].iloc[0]["promotes"].split(", ")[:8]}
    assert words == set(range(4, 12))  # domain a's
    assert peaks["value"].idxmax() == 0


def test_attribution_is_the_change_of_the_logit_where_nothing_else_is_in_between(stores: Any) -> None:
    """In a model of one layer the direct path is all there is: with the norm held, attributions sum to what experts add."""
    import torch

    from moescope.contracts import find
    from moescope.interventions.experiments._unembedding import unembedding
    from moescope.proof import observed
    from moescope.routers.contribution import contribution

    model: Any = stores["upcycled"][0].model
    ids = torch.arange(4, 16)[None]
    with torch.no_grad():
        out, final = unembedding(model, lambda: model(input_ids=ids))
        with final, observed(find(model)) as calls:
            logits = model(input_ids=ids).logits[0]
        call = next(reversed(calls.values()))[0]
        added = sum(contribution(call, expert) for expert in range(4))
        rest = final.states[0] - added
        through = (out.scaled(added, final.states[0]) + out.scaled(rest, final.states[0])) @ out.weight.T
    assert torch.allclose(through, logits.float(), atol=1e-4)


def test_random_experts_write_nothing_in_particular(stores: Any) -> None:
    answer = made(stores, "upcycled", "writes")
    assert not (answer.figures("direct attribution to the next token (logits)")["q"] <= 0.05).any()


def test_barring_the_expert_that_a_set_needs_acts_on_that_set_alone(stores: Any) -> None:
    answer = made(stores, "planted", "steer", first="a", second="b", experts=1)
    rows = answer.figures("change of loss (nats per token)").set_index(["estimator", "subset"])
    barred = rows.xs("deactivated: experts of the first")
    assert barred["value"]["domain=a"] > 1
    assert barred["value"]["domain=b"] == pytest.approx(0, abs=1e-9)
    only = barred.loc["domain=a less b"]
    assert only["p"] <= 0.05  # four documents of each set are left, and of 70 splits two are as far apart
    assert np.isnan(only["ci_low"])
    other = rows.xs("deactivated: experts of the second")
    assert other["value"].abs().max() < 1e-6  # domain b's expert does nothing, whatever its control does
    risk = answer.figures("risk difference")
    assert risk.loc[risk["value"].idxmax(), "expert"] == 0


def test_steering_experts_that_are_alike_does_nothing(stores: Any) -> None:
    answer = made(stores, "upcycled", "steer", first="a", second="b")
    rows = answer.figures("change of loss (nats per token)")
    assert len(rows) == 24  # two sides and their controls, two ways, two sets and their difference
    assert rows["value"].abs().max() < 1e-4
    with pytest.raises(InputError, match="two sets of four documents"):
        made(stores, "upcycled", "steer", first="a", second="z")


def test_router_inputs_are_written_and_tell_of_the_router_that_takes_them(stores: Any, tmp_path: Path) -> None:
    loaded, store = stores["planted"]
    found = experiments.experiment("states", loaded, store, path=str(tmp_path / "x.npz"), layer=0)
    assert found.said.startswith("768 tokens of 48 features are in")
    with np.load(tmp_path / "x.npz") as written, moescope.open(store) as opened:
        ids = dict(opened.rows("select token, vocab_id from tokens"))
        largest = written["features"].argmax(1)  # embeddings are one-hot
        assert largest.tolist() == [ids[int(token)] for token in written["token"]]
    answer = analyses.run("features", store, path=str(tmp_path / "x.npz"), k=8)
    assert answer.figures("F1 of a sparse probe", estimator="k=8")["value"].min() > 0.9
    with pytest.raises(InputError, match=r"a new \.npz file"):
        experiments.experiment("states", loaded, store, path=str(tmp_path / "x.npz"), layer=0)


def test_a_router_looks_ahead_where_the_states_hardly_change(stores: Any, tmp_path: Path) -> None:
    """Two layers with one router and experts that add nothing: the layer before says it all; other routers say nothing."""
    import torch
    from planted import mixtral

    models = {"same": mixtral(1, k=2, layers=2), "other": mixtral(1, k=2, layers=2)}
    for name, model in models.items():
        first, second = model.model.layers
        with torch.no_grad():
            for layer in (first, second):
                layer.mlp.experts.down_proj.zero_()
                layer.self_attn.o_proj.weight.zero_()
            if name == "same":
                second.mlp.gate.weight.copy_(first.mlp.gate.weight)
            else:
                first.mlp.gate.weight.normal_()
                second.mlp.gate.weight.normal_()
    found = {}
    for name, model in models.items():
        loaded, store = Loaded(name, model), tmp_path / f"{name}.duckdb"
        moescope.trace(loaded, texts(3), store, batch_size=12)
        experiments.experiment("lookahead", loaded, store)
        found[name] = analyses.run("predictability", store)
    each = found["same"].figures("assignments predicted from the layer before").set_index("estimator")
    assert each["value"].to_dict() == {"definition": 1.0, "own input": 1.0}
    assert each["q"]["definition"] <= 0.05
    load = found["same"].figures("load predicted from the layer before").set_index("estimator")["value"]
    assert load["cosine"] == pytest.approx(1.0)
    assert load["Spearman"] == pytest.approx(1.0)
    each = found["other"].figures("assignments predicted from the layer before").set_index("estimator")
    assert each["value"]["own input"] == 1.0


def test_the_command_line(stores: Any, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from moescope.cli import main

    loaded, store = stores["planted"]
    loaded.model.save_pretrained(tmp_path / "model")

    def say(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["experiment", *words], standalone_mode=False)
        return int(isinstance(result.exception, Exception)), str(result.exception or result.output)

    failed, text = say("--list")
    assert not failed
    assert [line.split("  ")[0] for line in text.splitlines()] == [e["name"] for e in experiments.catalogue()]
    failed, text = say(
        "regret", str(tmp_path / "model"), str(store), "-p", "tokens=2", "-p", "alternatives=1", "-p", "layers=0"
    )
    assert not failed, text
    assert f"figures are kept:  moescope analyze regret {store}" in text
    failed, text = say("regret", str(tmp_path / "model"), str(store), "-q", "--json", "-p", "tokens=2", "-p", "alternatives=1")
    assert {row["name"] for row in json.loads(text)} >= {"regret (nats)", "regret of a token (nats)"}
    for words, why in (
        (("regret", "model"), "say moescope experiment NAME MODEL STORE"),
        (("dreams", "model", str(store)), "there is no experiment 'dreams'"),
        (("regret", "model", str(tmp_path / "none.duckdb")), "there is no store"),
        (("regret", "model", str(store), "-p", "run=1"), "run is no option of an experiment"),
    ):
        failed, text = say(*words)
        assert failed
        assert why in text
