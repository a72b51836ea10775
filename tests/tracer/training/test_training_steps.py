"""A Trainer's optimizer steps, evaluations and logs, against hooks of our own."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from small import ids
from trainers import ROWS, After, Before, run, trainer
from transformers import Trainer, TrainerCallback
from transformers import trainer as transformers_trainer
from transformers.integrations import integration_utils

import moescope
from moescope.store.integrity.verify import verify

FORWARDS = "select phase, step, count(*), sum(tokens) from forwards group by all order by step, phase desc"


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, {1, 2, 3, 4}),
        ({"gradient_accumulation_steps": 2}, {1, 2, 3, 4}),
        ({"gradient_accumulation_steps": 5, "max_steps": 6}, {1, 2, 3, 4, 5, 6}),  # the last of an epoch has fewer
        ({"gradient_accumulation_steps": 2, "every": 2}, {1, 3}),
        ({"gradient_accumulation_steps": 2, "activation_checkpointing": True}, {1, 2, 3, 4}),
        ({"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}, {1, 2, 3, 4}),
    ],
    ids=str,
)
@pytest.mark.sampled(3)
def test_a_step_is_an_optimizer_step(tmp_path: Path, settings: dict[str, Any], steps: set[int]) -> None:
    """Micro-batches are summed, what is computed again counts once, `every` counts steps; one row per router and step."""
    _, truth, store = run(tmp_path, **settings)
    assert store.rows(ROWS) == truth.rows(steps)
    assert {step for (step,) in store.rows("select distinct step from forwards")} == steps
    assert store.rows("select count(*) from (select token, router from decisions group by all having count(*) > 1)") == [(0,)]
    assert [check for check in verify(store) if check.broken] == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_evaluation_is_apart(tmp_path: Path, accumulate: int) -> None:
    """What runs in evaluate() is no training step, and training goes on right behind it; in the run's forwards too."""
    settings = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True}
    _, truth, store = run(tmp_path, gradient_accumulation_steps=accumulate, **settings)
    assert store.rows(ROWS) == truth.rows()
    assert store.rows(FORWARDS) == [
        ("eval", 0, 3, 54), ("train", 1, accumulate, 18 * accumulate), ("train", 2, accumulate, 18 * accumulate),
        ("eval", 2, 3, 54), ("train", 3, accumulate, 18 * accumulate), ("train", 4, accumulate, 18 * accumulate),
        ("eval", 4, 3, 54),
    ]  # fmt: skip
    assert store.rows("select distinct phase, evaluation from training order by 1") == [("eval", "eval"), ("train", None)]


def test_each_evaluation_set_has_its_name(tmp_path: Path) -> None:
    """Several sets, a prediction by a callback, and an evaluation more at the same step: a row each."""

    class Predicts(TrainerCallback):
        trainer: Trainer

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                self.trainer.predict(data["a"])
                self.trainer.evaluate(data["a"])
                self.trainer.evaluate(data["a"])

    data = {name: [{"input_ids": r, "labels": r} for r in ids(n, 9, seed=n)] for name, n in (("a", 2), ("b", 4))}
    more = Predicts()
    made, _ = trainer(
        tmp_path, [more, moescope.RoutingCallback(tmp_path / "a.duckdb", every=1)], eval_dataset=data, eval_strategy="steps",
        eval_steps=2, max_steps=2,
    )  # fmt: skip
    more.trainer = made
    made.train()
    rows = moescope.open(tmp_path / "a.duckdb").rows(
        "select step, evaluation, tokens from training where layer = 0 order by all"
    )
    assert rows == [
        (1, "eval", 18), (1, "eval (2)", 18), (1, "test", 18), (1, None, 18),
        (2, "eval_a", 18), (2, "eval_b", 36), (2, None, 18),
    ]  # fmt: skip


@pytest.mark.sampled(1)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_steps_go_on(tmp_path: Path, accumulate: int) -> None:
    """A run from a checkpoint is filed under the Trainer's own step numbers."""
    run(tmp_path, save_strategy="steps", save_steps=2, max_steps=2, gradient_accumulation_steps=accumulate)
    again, truth, store = run(
        tmp_path, max_steps=5, gradient_accumulation_steps=accumulate, resume=str(tmp_path / "out/checkpoint-2")
    )
    rows = store.rows(ROWS.replace("from training", "from training where run = 1"))
    assert rows == truth.rows()
    assert {row[0] for row in rows} == {3, 4, 5}
    assert [row["step"] for row in again.state.log_history if "routing/step" in row] == [1, 2, 3, 4, 5]


def _routing(logs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in logs.items() if "routing/" in name}


@pytest.mark.parametrize("evaluates", [False, True])
def test_figures_go_through_the_trainers_own_log(tmp_path: Path, evaluates: bool) -> None:
    """log_history and callbacks before and behind ours see the same figures, in the same row as the loss, equal to the view."""
    before, after = Before(), After()
    callback = moescope.RoutingCallback(tmp_path / "a.duckdb", every=1)
    more = {"eval_strategy": "steps", "eval_steps": 2} if evaluates else {}
    made, _ = trainer(tmp_path, [before, callback, after], gradient_accumulation_steps=2, logging_steps=2, **more)
    made.train()
    history = [row for row in made.state.log_history if "train_runtime" not in row]
    assert [(row["step"], "loss" in row, "eval_loss" in row) for row in history if _routing(row)] == (
        [(2, True, False), (2, False, True), (4, True, False), (4, False, True)]
        if evaluates
        else [(2, True, False), (4, True, False)]
    )
    expected = [(row["step"], _routing(row)) for row in made.state.log_history]
    assert [(step, _routing(logs)) for step, logs in before.logs] == expected
    assert [(step, _routing(logs)) for step, logs in after.logs] == expected
    store = moescope.open(tmp_path / "a.duckdb")
    for name in (
        "load_entropy",
        "max_violation",
        "dead",
        "routing_entropy",
        "z_loss",
        "balance_switch",
        "balance_transformers",
    ):
        for step, layer, phase, value in store.rows(f"select step, layer, phase, {name} from training where step in (2, 4)"):
            key = f"{'eval_' * (phase == 'eval')}routing/model.layers.{layer}.mlp.gate/{name}"
            assert [row[key] for row in history if row["step"] == step and key in row] == [pytest.approx(value)]
    assert "log" not in vars(made)


def _points(name: str, backend: MagicMock) -> dict[str, list[int]]:
    """What an integration was told to draw: curve → its steps."""
    found: dict[str, list[int]] = {}
    if name == "TensorBoard":
        for call in backend.SummaryWriter().add_scalar.call_args_list:
            found.setdefault(call.args[0], []).append(call.args[2])
        return found
    for call in backend.log.call_args_list:
        for curve in call.args[0]:
            found.setdefault(curve, []).append(call.args[0]["train/global_step"])
    return found


@pytest.mark.parametrize(
    ("name", "package"), [("TensorBoard", "torch.utils.tensorboard"), ("Wandb", "wandb"), ("Trackio", "trackio")]
)
def test_integrations_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    """Transformers' own integrations, which stand before ours, over something that notes what they are to draw."""
    backend = MagicMock()
    monkeypatch.setitem(sys.modules, package, backend)
    for part in ("wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.config_util"):
        monkeypatch.setitem(sys.modules, part, MagicMock(ConfigError=KeyError))
    monkeypatch.setattr(integration_utils, f"is_{name.lower()}_available", lambda: True)
    own = getattr(integration_utils, f"{name}Callback")()
    monkeypatch.setattr(transformers_trainer, "get_reporting_integration_callbacks", lambda _: [own])
    callback = moescope.RoutingCallback(tmp_path / "a.duckdb", every=2)
    made, _ = trainer(tmp_path, callback, eval_strategy="steps", eval_steps=2, max_steps=5)
    made.train()
    points = _points(name, backend)
    for layer in (0, 1):
        for measure in ("load_entropy", "max_violation", "dead", "dropped_share", "z_loss", "balance_switch"):
            path = f"routing/model.layers.{layer}.mlp.gate/{measure}"
            assert (points[f"train/{path}"], points[f"eval/{path}"]) == ([1, 3, 5], [2, 4, 5])
    assert points["train/loss"] == [1, 2, 3, 4, 5]


def test_tensorboard_has_them(tmp_path: Path) -> None:
    """The curves lie in TensorBoard's files."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made, _ = trainer(
        tmp_path, moescope.RoutingCallback(tmp_path / "a.duckdb", every=1), report_to=["tensorboard"], eval_strategy="steps",
        eval_steps=2,
    )  # fmt: skip
    made.train()
    (file,) = (tmp_path / "out").rglob("events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    for tag, steps in (
        ("train/routing/model.layers.0.mlp.gate/dead", [1, 2, 3, 4]),
        ("eval/routing/model.layers.0.mlp.gate/dead", [2, 4]),
    ):
        assert [event.step for event in events.Scalars(tag)] == steps
