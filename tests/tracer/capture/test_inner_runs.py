"""Models that run themselves inside their own call: what they decide there is no token of its own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import tracing
from torch import nn

import moescope
from moescope.models.packages import peft as peft_tiny


def run(model: Any, inputs: dict[str, Any], store: Path, **settings: Any) -> tuple[list[Any], str]:
    """(router, sequence, place, iteration, expert, weight) of everything stored, and the run's warnings."""
    with moescope.Tracer(model, store, inputs=inputs, **settings), torch.no_grad():
        model(**inputs)
    with moescope.open(store) as opened:
        rows = opened.rows(
            "select r.block_type, r.layer, dense_rank() over (order by t.sequence), t.position, a.iteration, a.slot, a.expert, "
            "round(a.weight, 5) from assignments a join routers r using (router) join tokens t using (token) "
            "where r.contract = 'triple' order by all"
        )
        return rows, opened.rows("select warnings from runs")[0][0]


def hooked(model: Any, call: Callable[..., Any]) -> None:
    """Run the model once more in a hook before its forward."""
    busy: list[int] = []

    def before(_: Any, args: Any, kwargs: Any) -> None:
        if not busy:
            busy.append(1)
            call(model, kwargs)
            busy.clear()

    model.register_forward_pre_hook(before, with_kwargs=True)


def behind(model: Any) -> None:
    """Run the model once more in a hook behind its forward."""
    model.register_forward_hook(lambda _, args, kwargs, out: model.forward(**kwargs) and None, with_kwargs=True)


class Twice(nn.Module):
    """Runs itself in its own forward before it does what it was called for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.inner, self.how = tracing.tiny(), how
        self.config = self.inner.config

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, first: bool = True) -> Any:
        if first and self.how == "calls itself":
            self(input_ids=input_ids, attention_mask=attention_mask, first=False)
        if first and self.how == "its forward":
            self.forward(input_ids, attention_mask, False)
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


class Halves(Twice):
    """Does all its work in calls of itself: each half of the batch is one."""

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, first: bool = True) -> Any:
        if not first:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)
        parts = [self(input_ids=i, attention_mask=m, first=False) for i, m in zip(input_ids.split(1), attention_mask.split(1))]
        return torch.cat([part.logits for part in parts])


def wrapped(model: Any) -> Any:
    """A forward that somebody put in place of the model's, without saying what it wraps."""
    old = model.forward
    model.forward = lambda *args, **kwargs: old(*args, **kwargs)
    return model


def bound(model: Any) -> Any:
    """As Accelerate does it."""
    model.forward = partial(lambda module, *args, **kwargs: type(module).forward(module, *args, **kwargs), model)
    return model


def plain() -> dict[str, Any]:
    """Two sequences of eight."""
    ids = torch.randint(1, tracing.VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the model decides when it runs once."""
    rows, said = run(tracing.tiny(), plain(), tmp_path_factory.mktemp("once") / "a.duckdb")
    assert said == "[]"
    assert len(rows) == 2 * 2 * 8 * 2
    return rows


TWICE: dict[str, Callable[[], Any]] = {
    "forward in a hook": lambda: (m := tracing.tiny(), hooked(m, lambda model, k: model.forward(**k)))[0],
    "call in a hook": lambda: (m := tracing.tiny(), hooked(m, lambda model, k: model(**k)))[0],
    "forward behind": lambda: (m := tracing.tiny(), behind(m))[0],
    "calls itself": lambda: Twice("calls itself").eval(),
    "its forward": lambda: Twice("its forward").eval(),
}
ONCE: dict[str, Callable[[], Any]] = {
    "wrapper": lambda: Twice("").eval(),
    "in halves": lambda: Halves("").eval(),
    "forward replaced": lambda: wrapped(tracing.tiny()),
    "forward replaced twice": lambda: wrapped(wrapped(tracing.tiny())),
    "forward bound": lambda: bound(tracing.tiny()),
}


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.sampled(3)
def test_stored_once(kind: str, once: list[Any], tmp_path: Path) -> None:
    """Each token is stored once, with the decision of the call that was asked for, and the run says what was left out."""
    rows, said = run(TWICE[kind](), plain(), tmp_path / "a.duckdb")
    assert rows == once
    assert "1 forwards ran the model inside its own call" in said


@pytest.mark.parametrize("kind", ONCE)
def test_nothing_left_out(kind: str, once: list[Any], tmp_path: Path) -> None:
    """Models that work once, however they come to it, are stored whole and without a word."""
    rows, said = run(ONCE[kind](), plain(), tmp_path / "a.duckdb")
    assert [(*r[:4], *r[5:]) for r in rows] == [(*r[:4], *r[5:]) for r in once]  # halves are two firings
    assert said == "[]"


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.sampled(3)
def test_summed_once(kind: str, tmp_path: Path) -> None:
    """Summed-up activations are those of the stored rows."""
    counts = []
    for model, name in ((tracing.tiny(), "a"), (TWICE[kind](), "b")):
        options = moescope.tracer.Options(activations=["importance"])
        run(model, plain(), tmp_path / f"{name}.duckdb", options=options)
        with moescope.open(tmp_path / f"{name}.duckdb") as store:
            counts.append(store.rows("select layer, expert, n, round(value, 4) from measures where name = 'ean' order by all"))
    assert counts[0] == counts[1]
    assert sum(n for _, _, n, _ in counts[0]) == 2 * 2 * 8 * 2


def test_nothing_summed(tmp_path: Path) -> None:
    """Where all work is inside, what could be summed up is left out with a word."""
    options = moescope.tracer.Options(activations=["importance"])
    rows, said = run(ONCE["in halves"](), plain(), tmp_path / "a.duckdb", options=options)
    assert len(rows) == 2 * 2 * 8 * 2
    assert "no activations were summed up" in said


def test_xlora_over_a_mixture(tmp_path: Path) -> None:
    """Mixtral under X-LoRA: 16 tokens are 16 tokens, and the decisions are those of the pass that has the adapters' weights."""
    pytest.importorskip("peft", reason="peft is not installed")
    model = peft_tiny.xlora(tmp_path, mixture=True)
    inputs, passes = peft_tiny.inputs(), []
    gate = model.get_submodule("base_model.lora_model.model.model.layers.1.mlp.gate")
    gate.register_forward_hook(lambda _, __, out: passes.append(out))
    rows, said = run(model, inputs, tmp_path / "a.duckdb")
    assert len(rows) == 2 * 16 * 2
    assert {row[4] for row in rows} == {0}
    assert "1 forwards ran the model inside its own call" in said
    _, weights, experts = passes[-1]
    last = [(row[6], float(row[7])) for row in rows if row[1] == 1]
    wanted = list(zip(experts.flatten().tolist(), weights.flatten().tolist()))
    assert [e for e, _ in last] == [e for e, _ in wanted]
    assert [w for _, w in last] == pytest.approx([w for _, w in wanted], abs=2e-5)
    assert not torch.equal(passes[-2][1], weights)


def test_a_run_inside_that_begins_late_is_said(tmp_path: Path) -> None:
    """After some plain forwards nobody looks whether a call lies inside another: the first such forward is named."""
    model, inputs = tracing.tiny(), {"input_ids": torch.tensor([[3, 4, 5]])}
    own = model.forward
    with moescope.Tracer(model, tmp_path / "a.duckdb"), torch.no_grad():
        for _ in range(5):
            model(**inputs)
        handle = model.register_forward_pre_hook(lambda m, a, k: own(**inputs) and None, with_kwargs=True)
        for _ in range(3):
            model(**inputs)
        handle.remove()
    with moescope.open(tmp_path / "a.duckdb") as store:
        per_forward = store.rows("select forward, count(*) from decisions where router = 0 group by all order by 1")
        ((warnings,),) = store.rows("select warnings from runs")
    assert per_forward == [(n, 6 if n == 5 else 3) for n in range(8)]
    assert "in 1 forwards routers fired again and again for the first time" in warnings
    assert "2 forwards ran the model inside its own call" in warnings
