"""Training loops of one's own: steps that are told, steps that are seen, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import ids, mixtral

import moescope
from moescope.errors import InputError
from moescope.store.integrity.verify import verify

FORWARDS = "select phase, step, count(*), sum(tokens) from forwards group by all order by step, phase desc"


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
