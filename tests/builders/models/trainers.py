"""Real Trainers of tiny models, and what ran in them by hooks that know nothing of moescope."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small import ids, mixtral
from transformers import Trainer, TrainerCallback, TrainingArguments

import moescope


class Truth:
    """(step, training, layer) → how often each expert was called for, by what entered the experts' call outside of backward."""

    def __init__(self, model: torch.nn.Module, state: Any = None) -> None:
        self.state, self.model = state, model
        self.counts: dict[tuple[int, bool, int], np.ndarray] = defaultdict(lambda: np.zeros(8, int))
        for layer, block in enumerate(model.model.layers):
            block.mlp.experts.register_forward_pre_hook(self._hook(layer))

    def _hook(self, layer: int) -> Any:
        def hook(_: Any, args: Any) -> None:
            if self.state is not None and torch._C._current_graph_task_id() == -1:
                step = self.state.global_step + self.model.training
                self.counts[step, self.model.training, layer] += np.bincount(args[1].reshape(-1).cpu(), minlength=8)

        return hook

    def rows(self, steps: Any = None) -> list[tuple[Any, ...]]:
        """(step, phase, layer, tokens, dead, load entropy) as the view has them; of training only these steps."""
        found = []
        for (step, training, layer), load in self.counts.items():
            if not training or steps is None or step in steps:
                share = load[load > 0] / load.sum()
                entropy = round(float(-(share * np.log(share)).sum() / np.log(8)), 6)
                found.append((step, "train" if training else "eval", layer, load.sum() // 2, (load == 0).sum(), entropy))
        return sorted(found)


ROWS = "select step, phase, layer, tokens, dead, round(load_entropy, 6) from training order by step, phase, layer"


def trainer(
    path: Path, callback: Any, kind: type[Trainer] = Trainer, model: Any = None, **settings: Any
) -> tuple[Trainer, Truth]:
    """A Trainer of a tiny Mixtral on 24 rows (6 to evaluate on), batches of 2; `callback` is one or several."""
    model = model or mixtral()
    extra = {name: settings.pop(name) for name in ("compute_metrics", "eval_dataset") if name in settings}
    data = [{"input_ids": row, "labels": row} for row in ids(24, 9)]
    arguments: dict[str, Any] = {
        "output_dir": str(path / "out"), "max_steps": 4, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2,
        "logging_steps": 1, "report_to": [], "use_cpu": True, "learning_rate": 1e-2, "disable_tqdm": True,
        "save_strategy": "no",
    }  # fmt: skip
    callbacks = list(callback) if isinstance(callback, list) else [callback]
    arguments = {**arguments, **settings}
    made = kind(
        model=model, args=TrainingArguments(**arguments), train_dataset=data, callbacks=callbacks,
        **{"eval_dataset": [{"input_ids": row, "labels": row} for row in ids(6, 9, seed=1)], **extra},
    )  # fmt: skip
    return made, Truth(model)


def run(path: Path, *, resume: Any = None, **settings: Any) -> tuple[Trainer, Truth, moescope.Store]:
    """Train with a RoutingCallback that records every `every`-th step (1); gives the Trainer, what ran, and the store."""
    callback = moescope.RoutingCallback(path / "a.duckdb", every=settings.pop("every", 1))
    made, truth = trainer(path, [callback, Follow()], **settings)
    next(c for c in made.callback_handler.callbacks if isinstance(c, Follow)).truth = truth
    made.train(resume_from_checkpoint=resume)
    return made, truth, moescope.open(path / "a.duckdb")


class Follow(TrainerCallback):
    """Tells the truth which state is the Trainer's."""

    truth: Truth

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From here on, it counts."""
        self.truth.state = state

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """No longer."""
        self.truth.state = None


class Recorder(TrainerCallback):
    """What a callback is told, event by event."""

    def __init__(self) -> None:
        self.logs: list[tuple[int, dict[str, Any]]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep them."""
        self.logs.append((state.global_step, dict(logs)))


class Before(Recorder):
    """One that stands before ours."""


class After(Recorder):
    """One that stands behind ours."""
