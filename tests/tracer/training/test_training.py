"""Tracing a training run: sampled, health over steps, collapse seen while it happens."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small import ids, mixtral
from transformers import Trainer, TrainingArguments

import moescope
from moescope.store.integrity.verify import verify
from moescope.tracer.handover.health import health


def test_health_by_hand() -> None:
    """Four tokens, top-1 of 4, one dropped, one padding."""
    arrays = {
        "experts": np.array([[[0], [0], [1], [0], [3]]]),
        "dropped": np.array([[[False], [False], [False], [True], [False]]]),
        "entropy": np.array([[1.0, 2.0, 3.0, 4.0, 9.0]]),
        "log_sum_exp": np.array([[1.0, 1.0, 1.0, 3.0, 9.0]]),
        "mean_probability": np.array([[0.7, 0.1, 0.1, 0.1]]),
    }
    found = health(arrays, np.array([[0, 1, 2, 3, -1]]), [4])[0]
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)) / np.log(4)
    expected = {
        "load_entropy": entropy, "max_violation": 2 / 3 * 4 - 1, "dead": 2, "dropped_share": 0.25, "routing_entropy": 2.5,
        "z_loss": 3.0, "balance_switch": 4 * (0.75 * 0.7 + 0.25 * 0.1), "balance_transformers": 4 * (0.75 * 0.7 + 0.25 * 0.1),
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-12)


def test_own_loop_with_checkpointing(tmp_path: Path) -> None:
    """Every router fires again in the backward pass; it is recorded once. Every second step, a quarter of the tokens."""
    model, x = mixtral().train(), ids(4, 50)
    model.gradient_checkpointing_enable()
    step = torch.optim.SGD(model.parameters(), 0.1)
    with moescope.Tracer(model, tmp_path / "a.duckdb", every=2, fraction=0.25, monitor=True):
        for _ in range(4):
            model(x, labels=x).loss.backward()
            step.step()
            step.zero_grad()
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select phase, step, tokens from forwards order by forward") == [("train", 0, 200), ("train", 2, 200)]
    (share,) = store.rows("select count(*) / 800 from decisions")[0]
    assert 0.15 < share < 0.35
    assert store.rows("select count(distinct token) * 2 = count(*) from decisions") == [(True,)]
    assert store.rows("select count(*), count(load_entropy), count(balance_switch), count(z_loss) from training") == [
        (4, 4, 4, 4)
    ]
    assert [check for check in verify(store) if check.broken] == []
    assert model.training


@pytest.mark.slow
def test_collapse_is_seen_while_it_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose router is pushed to one expert is reported at the step where that happens."""
    model = mixtral(layers=1)
    data = [{"input_ids": row, "labels": row} for row in ids(32, 16)]
    callback = moescope.RoutingCallback(tmp_path / "a.duckdb", every=2)

    class Collapsing(Trainer):
        def training_step(self, model: torch.nn.Module, *args: object, **kwargs: object) -> torch.Tensor:
            gate, hidden = model.model.layers[0].mlp.gate, {}
            handle = gate.register_forward_pre_hook(lambda _, a: hidden.update(mean=a[0].reshape(-1, a[0].shape[-1]).mean(0)))
            loss = super().training_step(model, *args, **kwargs)
            handle.remove()
            gate.weight.data[:2] += 2.0 * hidden["mean"].detach()
            return loss

    settings = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=16, per_device_train_batch_size=4, logging_steps=2, report_to=[],
        use_cpu=True, learning_rate=1e-3, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    Collapsing(model=model, args=settings, train_dataset=data, callbacks=[callback]).train()
    store = moescope.open(tmp_path / "a.duckdb")
    curve = [value for (value,) in store.rows("select load_entropy from training order by step")]
    assert curve[0] > 0.8
    assert min(curve) < 0.5
    assert "routing collapses at model.layers.0.mlp.gate" in capsys.readouterr().out
    assert "routing collapses" in store.rows("select warnings from runs")[0][0]
