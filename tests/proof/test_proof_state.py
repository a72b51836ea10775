"""A proof leaves no trace in the model: its whole state and the next training step are those of a model never proved."""

import copy
import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from torch import nn

from moescope.contracts import find
from moescope.errors import ProofFailed
from moescope.models import tiny
from moescope.proof import example_inputs, prove, proving, quiet, tensors
from moescope.proof import state as proof_state


def told(thing: Any, seen: dict[int, int]) -> Any:
    """Everything that can be reached from an object, as nested tuples that compare by value."""
    if isinstance(thing, torch.Tensor):
        return ("tensor", str(thing.dtype), tuple(thing.shape), thing.detach().double().nan_to_num(7.25).flatten().tolist())
    if isinstance(thing, bool | int | float | complex | str | bytes | type(None)):
        return repr(thing)
    if id(thing) in seen:
        return ("again", seen[id(thing)])
    seen[id(thing)] = len(seen)
    if isinstance(thing, dict):
        return (type(thing).__name__, [(repr(k), told(v, seen)) for k, v in thing.items()])
    if isinstance(thing, list | tuple | deque):
        return (type(thing).__name__, [told(v, seen) for v in thing])
    if isinstance(thing, nn.Module) or (hasattr(thing, "__dict__") and not callable(thing)):
        return (type(thing).__name__, [(name, told(value, seen)) for name, value in vars(thing).items()])
    return type(thing).__name__


def step(model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """One training step: loss, every gradient, every weight after it, and the next random number."""
    torch.manual_seed(3)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {k: v.clone() if torch.is_tensor(v) else v for k, v in inputs.items()}
    output = model(**given)
    loss = sum(t.double().square().mean() for t in tensors(output) if t.requires_grad)
    assert torch.is_tensor(loss)
    loss.backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    optimizer.step()
    return loss, gradients, [p.detach().clone() for p in model.parameters()], torch.rand(1)


def same(one: Any, other: Any) -> bool:
    if torch.is_tensor(one):
        return torch.equal(one.nan_to_num(7.25), other.nan_to_num(7.25))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other))
    return one == other


@pytest.mark.sampled(25)
@pytest.mark.slow
@pytest.mark.parametrize("family", tiny.names())
def test_no_family_is_changed_by_its_proof(family: str) -> None:
    built = tiny.build(family)
    never = copy.deepcopy(built.model)
    for model in (built.model, never):
        model.train()
        model.float()
    before = told(built.model, {})
    randoms = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    prove(built.model, find(built.model), built.inputs)
    assert told(built.model, {}) == before
    now = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert now[:2] == randoms[:2]
    assert torch.equal(now[2], randoms[2])
    assert same(step(built.model, dict(built.inputs)), step(never, dict(built.inputs)))


class Remembering(nn.Module):
    """Wraps a model and changes whatever can be changed in a forward."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config
        self.register_buffer("calls", torch.zeros(2))
        self.register_buffer("late", None)
        self.count, self.seen, self.cache, self.names = 0, [], {"a": [1]}, {"x"}
        self.recent, self.table, self.dice = deque([1], maxlen=3), np.zeros(3), random.Random(0)
        self.generator = torch.Generator().manual_seed(1)
        self.plain = torch.zeros(3)

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        self.calls += 1
        self.late = torch.ones(1)
        self.count += 1
        self.seen.append(input_ids)
        self.cache["a"].append(2)
        self.cache["b"] = {"deep": [self.dice.random()]}
        self.names.add("y")
        self.recent.append(2)
        self.table[0] += 1
        self.extra = torch.rand(1, generator=self.generator)
        self.plain.add_(1)
        self.config.note = "changed"
        np.random.rand()
        random.random()
        torch.rand(1)
        self.training = True
        return self.inner(input_ids, **kwargs)


def test_whatever_a_forward_changes_is_put_back() -> None:
    model = Remembering(small.mixtral())
    before = told(model, {})
    states = model.dice.getstate(), model.generator.get_state()
    randoms = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    prove(model, find(model), example_inputs(model))
    assert told(model, {}) == before
    assert model.dice.getstate() == states[0]
    assert torch.equal(model.generator.get_state(), states[1])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == randoms[:2]
    assert torch.equal(torch.get_rng_state(), randoms[2])


def test_a_cache_among_the_inputs_is_put_back() -> None:
    from transformers.cache_utils import DynamicCache

    model = small.mixtral()
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(small.ids(2, 4), past_key_values=cache)
    before = told(cache, {})
    prove(model, find(model), {"input_ids": small.ids(2, 3), "past_key_values": cache})
    assert cache.get_seq_length() == 4
    assert told(cache, {}) == before


def test_the_state_is_put_back_after_an_exception_too() -> None:
    model = Remembering(small.mixtral())
    before = told(model, {})

    def fail() -> None:
        with quiet(model, {}):
            assert proving()
            model(small.ids())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not proving()
    assert told(model, {}) == before


def test_weights_written_by_a_forward_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy of the weights is kept: a model that writes into them is refused, not changed without a word."""
    model = small.mixtral()
    model.lm_head.register_forward_pre_hook(lambda m, _: (m.weight.mul_(1.5), None)[1])
    with pytest.raises(ProofFailed, match="writes into a weight or large tensor"):
        prove(model, find(model), example_inputs(model))
    monkeypatch.setattr(proof_state, "_CLONED", 0)
    model = Remembering(small.mixtral())
    with pytest.raises(ProofFailed, match="writes into a weight or large tensor"):
        prove(model, find(model), example_inputs(model))


def test_traced_training_is_untraced_training(tmp_path: Path) -> None:
    """NLLB-MoE's router keeps the capacity of its last forward, and drops by it."""
    import moescope

    losses = []
    for traced in (False, True):
        built = tiny.build("nllb-moe")
        model = built.model
        if traced:
            with moescope.Tracer(model, tmp_path / "run.duckdb", inputs=built.inputs):
                losses.append([step(model, dict(built.inputs)) for _ in range(2)])
        else:
            losses.append([step(model, dict(built.inputs)) for _ in range(2)])
    assert same(losses[0], losses[1])
