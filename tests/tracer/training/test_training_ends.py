"""Trainings that are broken off, repeated, or have nothing to train."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import mixtral
from trainers import trainer
from transformers import Trainer, TrainerCallback

import moescope
from moescope.store.integrity.verify import verify


def _routing(logs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in logs.items() if "routing/" in name}


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
@pytest.mark.sampled(2)
def test_an_exception_loses_nothing(tmp_path: Path, event: str, error: type[BaseException]) -> None:
    """The run is stored as interrupted, the exception goes on, and neither model nor Trainer keep anything of ours."""
    callback = moescope.RoutingCallback(tmp_path / "a.duckdb", every=1)
    settings: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "gradient_accumulation_steps": 2, "max_steps": 3}
    settings |= {"per_device_train_batch_size": 6, "per_device_eval_batch_size": 3}  # a second epoch begins with the last step
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
    made, _ = trainer(tmp_path, [breaks, callback], kind=Own, model=model, **settings)
    before = _hooks(model)
    with pytest.raises(error, match="broken off"):
        made.train()
    assert _hooks(model) == before
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
