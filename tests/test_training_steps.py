"""A Trainer's optimizer steps, evaluations and logs, against hooks of our own."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from small import ids, mixtral
from trainers import ROWS, After, Before, run, trainer
from transformers import Trainer, TrainerCallback
from transformers import trainer as transformers_trainer
from transformers.integrations import integration_utils

import moescope
from moescope.errors import InputError
from moescope.store.verify import verify

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


class Breaks(TrainerCallback):
    """Raises at one event, the second time that it comes."""

    def __init__(self, event: str, error: type[BaseException]) -> None:
        self.left = 2

        def broken(*_: Any, **__: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise error("broken off")

        setattr(self, event, broken)


EVENTS = [
    "on_step_begin",
    "on_step_end",
    "on_substep_end",
    "on_prediction_step",
    "on_epoch_begin",
    "on_log",
    "on_pre_optimizer_step",
]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt], ids=lambda e: e.__name__)
@pytest.mark.parametrize("event", [*EVENTS, "forward", "data", "evaluate"])
def test_an_exception_loses_nothing(tmp_path: Path, event: str, error: type[BaseException]) -> None:
    """The run is stored as interrupted, the exception goes on, and neither model nor Trainer keep anything of ours."""
    callback = moescope.RoutingCallback(tmp_path / "a.duckdb", every=1)
    settings: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "gradient_accumulation_steps": 2, "max_steps": 8}
    breaks = Breaks(event if event in EVENTS else "none", error)

    class Own(Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            if event == "forward" and self.state.global_step == 1:
                raise error("broken off")
            return loss

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            if event == "data" and self.state.global_step == 1:
                raise error("broken off")
            return super().get_batch_samples(*args, **kwargs)

        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            found = super().evaluate(*args, **kwargs)
            if event == "evaluate" and self.state.global_step == 1:
                raise error("broken off")
            return found

    model = mixtral()
    hooks = _hooks(model)
    made, _ = trainer(tmp_path, [breaks, callback], kind=Own, model=model, **settings)
    own = dict(vars(made)), _hooks(model)
    with pytest.raises(error, match="broken off"):
        made.train()
    assert _hooks(model) == own[1]
    assert hooks != {} or hooks == {}
    assert {"log", "_run_epoch", "_evaluate", "_finalize_training", "training_step"}.isdisjoint(vars(made))
    assert "call_event" not in vars(made.callback_handler)
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select status from runs") == [("interrupted",)]
    assert {1} <= {step for (step,) in store.rows("select step from training where phase = 'train'")} <= {1, 2, 3, 4, 5, 6}
    assert [check for check in verify(store) if check.broken] == []
    breaks.left, event = 10**9, ""
    made.train()
    assert moescope.open(tmp_path / "a.duckdb").rows("select status from runs order by run") == [
        ("interrupted",),
        ("complete",),
    ]


def _hooks(model: torch.nn.Module) -> dict[str, int]:
    return {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in model.named_modules()}


def test_several_trainings_evaluations_and_the_best_model(tmp_path: Path) -> None:
    """A run for each train() with one callback; what is evaluated or predicted outside of training is in none."""
    callback = moescope.RoutingCallback(tmp_path / "a.duckdb", every=1)
    settings = {
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True,
        "max_steps": 2, "compute_metrics": lambda found: {"rows": float(len(found.predictions))},
    }  # fmt: skip
    made, _ = trainer(tmp_path, callback, **settings)
    before = made.evaluate()
    assert not _routing(before)
    made.train()
    assert not _routing(made.evaluate())
    made.predict(made.eval_dataset)
    made.train()
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select run, status, tokens from runs order by run") == [(0, "complete", 144), (1, "complete", 144)]
    assert store.rows("select run, step, phase from training where layer = 0 order by all") == [
        (r, s, p) for r in (0, 1) for s in (1, 2) for p in ("eval", "train")
    ]
    assert [row["eval_rows"] for row in made.state.log_history if "eval_rows" in row] == [6.0, 6.0]


def test_nothing_to_train_is_no_run(tmp_path: Path) -> None:
    """A Trainer without a row trains nothing: nothing is stored, and nothing fails."""

    class Empty(Trainer):
        def get_batch_samples(self, *_: Any) -> Any:
            return [], None

    made, _ = trainer(tmp_path, moescope.RoutingCallback(tmp_path / "a.duckdb"), kind=Empty)
    made.train()
    assert moescope.open(tmp_path / "a.duckdb").rows("select * from runs") == []


def _loop(tracer: moescope.Tracer, model: Any, tell: Any, accumulate: int = 2, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for n in range(steps * accumulate):
        model.train()
        x = ids(2, 9, seed=n)
        (model(x, labels=x).loss / accumulate).backward()
        if (n + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            if tell is not None:
                tracer.step(*tell((n + 1) // accumulate))
            model.eval()
            with torch.no_grad():
                model(ids(4, 9))


@pytest.mark.parametrize(
    ("tell", "numbers"),
    [
        (None, [0, 1, 2]),
        (lambda n: (), [1, 2, 3]),
        (lambda n: (10 * n,), [10, 20, 30]),
        (lambda n: (torch.tensor(n),), [1, 2, 3]),
    ],
    ids=["untold", "next", "tens", "tensor"],
)
@pytest.mark.parametrize("every", [1, 2])
def test_own_loops(tmp_path: Path, tell: Any, numbers: list[int], every: int) -> None:
    """Accumulated gradients in a loop of one's own: told by step(), or seen by the optimizer's; evaluation apart."""
    model = mixtral()
    with moescope.Tracer(model, tmp_path / "a.duckdb", monitor=True, every=every) as tracer:
        _loop(tracer, model, tell)
    store = moescope.open(tmp_path / "a.duckdb")
    kept = (
        numbers
        if every == 1
        else [n for n, i in zip(numbers, range(3)) if (0 if i == 0 else i if tell is None else numbers[i - 1]) % 2 == 0]
    )
    train = [("train", step, 2, 36) for step in kept]
    assert [row for row in store.rows(FORWARDS) if row[0] == "train"] == train
    done = [1, 2, 3] if tell is None else numbers
    assert [row for row in store.rows(FORWARDS) if row[0] == "eval"] == [("eval", step, 1, 36) for step in done]
    assert store.rows("select step, phase, tokens from training where layer = 1 order by phase desc, step") == [
        *((step, "train", 36) for step in kept), *((step, "eval", 36) for step in done)
    ]  # fmt: skip
    assert [check for check in verify(store) if check.broken] == []


def test_losses_over_several_forwards(tmp_path: Path) -> None:
    """Two forwards before one backward are of one step; a rollout without gradients is neither training nor evaluation."""
    model = mixtral().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with moescope.Tracer(model, tmp_path / "a.duckdb", monitor=True) as tracer:
        for step in range(1, 3):
            with torch.no_grad():
                model(ids(1, 5))
            (model(ids(2, 9)).logits.mean() + model(ids(2, 9, seed=1)).logits.mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
            tracer.step(step)
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select step, phase, tokens from training where layer = 1 order by all") == [
        (0, "eval", 5), (1, "train", 36), (2, "train", 36)
    ]  # fmt: skip


@pytest.mark.parametrize("number", [-1, 1.5, "7", True])
def test_step_refuses_what_is_no_number(tmp_path: Path, number: Any) -> None:
    """One sentence."""
    with moescope.Tracer(mixtral(), tmp_path / "a.duckdb", monitor=True) as tracer:
        tracer.model(ids())
        with pytest.raises(InputError, match="give the number of the training step that is over"):
            tracer.step(number)


def test_step_refuses_going_back_and_unmonitored_runs(tmp_path: Path) -> None:
    """One sentence each."""
    with moescope.Tracer(mixtral(), tmp_path / "a.duckdb", monitor=True) as tracer:
        tracer.model(ids())
        tracer.step(5)
        with pytest.raises(InputError, match=r"step\(4\) comes after step\(5\): the numbers of training steps go up"):
            tracer.step(4)
    with moescope.Tracer(mixtral(), tmp_path / "b.duckdb") as tracer:
        tracer.model(ids())
        with pytest.raises(InputError, match="monitor=True"):
            tracer.step(1)
