"""What is not stored after all is in no sum: forwards that fail, batches and steps that are broken off, padding."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from activation_counts import BOTH, agree, compared
from padding import padded
from stored_sequences import phases

import moescope
from moescope.models.tiny import build
from moescope.tracer import SequenceInfo
from moescope.tracer.handover.record_batches import mean_probabilities

LEFT, RIGHT = padded("left"), padded("right")


@pytest.fixture(scope="module")
def model() -> Any:
    return build("mixtral").model


class Stop(Exception):
    """Raised in the middle of a trace."""


def fails(model: Any) -> None:
    """A forward whose routers all ran, and that ends with an exception."""

    def stop(*_: Any) -> None:
        raise Stop

    handle = model.lm_head.register_forward_pre_hook(stop)
    try:
        model(RIGHT[0], attention_mask=RIGHT[1])
    finally:
        handle.remove()


def infos() -> list[SequenceInfo]:
    return [SequenceInfo() for _ in range(3)]


@pytest.mark.parametrize("hold", [1, 64])
@pytest.mark.parametrize("where", ["alone", "in a batch"])
def test_a_forward_that_fails(tmp_path: Path, model: Any, hold: int, where: str) -> None:
    """Its caller goes on, with and without a batch around."""

    def run(tracer: Any) -> None:
        def all_of_it() -> None:
            model(LEFT[0], attention_mask=LEFT[1])
            with pytest.raises(Stop):
                fails(model)
            model(RIGHT[0], attention_mask=RIGHT[1])

        with tracer.batch(infos()) if where == "in a batch" else nullcontext():
            all_of_it()

    store = agree(tmp_path / "a.duckdb", model, run, hold=hold)
    assert [tokens for _, tokens in phases(store)] == [12, 12]


@pytest.mark.parametrize("hold", [1, 64])
@pytest.mark.parametrize("caught", [True, False])
def test_a_batch_that_is_broken_off(tmp_path: Path, model: Any, hold: int, caught: bool) -> None:
    """Whatever of it is stored is summed up, and nothing else; a run that ends so goes back to its last whole batch."""

    def broken(tracer: Any) -> None:
        with tracer.batch(infos()):
            model(RIGHT[0], attention_mask=RIGHT[1])
            raise Stop

    path = tmp_path / "a.duckdb"
    with torch.no_grad():
        try:
            with moescope.Tracer(model, path, hold=hold, **BOTH) as tracer:
                with tracer.batch(infos()):
                    model(LEFT[0], attention_mask=LEFT[1])
                if caught:
                    with pytest.raises(Stop):
                        broken(tracer)
                    model(RIGHT[0], attention_mask=RIGHT[1])
                else:
                    broken(tracer)
        except Stop:
            assert not caught
    store = compared(path)
    assert caught or phases(store) == [("prefill", 12)]


def test_a_training_step_that_is_broken_off(tmp_path: Path) -> None:
    """With `monitor` a step is whole when its optimizer has stepped."""
    found = build("mixtral")
    optimizer = torch.optim.SGD(found.model.parameters(), lr=0.1)
    found.model.train()
    path = tmp_path / "a.duckdb"

    def train() -> None:
        with moescope.Tracer(found.model, path, inputs=found.inputs, monitor=True, **BOTH) as tracer:
            for step in range(3):
                found.model(LEFT[0], attention_mask=LEFT[1], labels=LEFT[0]).loss.backward()
                if step == 2:
                    raise Stop
                optimizer.step()
                optimizer.zero_grad()
                tracer.step()

    with pytest.raises(Stop):
        train()
    compared(path)


def test_mean_probabilities_leave_out_what_is_padding(tmp_path: Path) -> None:
    """Also where a padded place holds no number: a softmax over nothing."""
    logits = np.log(np.array([[[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]]], np.float32))
    logits[0, 2] = np.nan
    real = np.array([[True, True, False]])
    np.testing.assert_allclose(mean_probabilities(logits, "softmax", real), [[0.2, 0.8]], rtol=1e-6)
    assert mean_probabilities(logits, "softmax", ~real & False).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_balance_is_of_the_tokens_that_are_stored(tmp_path: Path, model: Any, side: str) -> None:
    """Load times mean probability, by hand from what is stored."""
    ids, mask, _ = padded(side)
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb", monitor=True, logits=True, inputs={"input_ids": ids}):
        model(ids, attention_mask=mask)
    store = moescope.open(tmp_path / "a.duckdb")
    logits = np.array([row for (row,) in store.rows("select logits from logits where router = 0")])
    load = np.bincount([e for (e,) in store.rows("select expert from assignments where router = 0")], minlength=8)
    mean = torch.softmax(torch.tensor(logits), -1).mean(0).numpy()
    value = 8 * (load / load.sum() * mean).sum()
    query = "select n, value from measures where name = 'balance_switch' and router = 0"
    assert store.rows(query) == [(12, pytest.approx(value, rel=1e-5))]
