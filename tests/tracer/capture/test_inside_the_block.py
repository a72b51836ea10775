"""What a user may do inside the block: each is recorded rightly, or ends in one sentence at once."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import moescope
from moescope.errors import ModelError


def _one(model: Any, name: str) -> None:
    parts = name.split(".")
    owner = model.get_submodule(".".join(parts[:-1]))
    setattr(owner, parts[-1], small.mixtral(seed=5).get_submodule(name))


CHANGES: dict[str, Callable[[Any], None]] = {
    "a router replaced": lambda m: _one(m, "model.layers.0.mlp.gate"),
    "experts replaced": lambda m: _one(m, "model.layers.1.mlp.experts"),
    "a block replaced": lambda m: _one(m, "model.layers.1.mlp"),
    "a layer replaced": lambda m: m.model.layers.__setitem__(0, small.mixtral(seed=5).model.layers[0]),
    "all layers replaced": lambda m: setattr(m.model, "layers", small.mixtral(seed=5).model.layers),
    "a layer added": lambda m: m.model.layers.append(small.mixtral(seed=5).model.layers[0]),
    "a layer taken away": lambda m: m.model.layers.__delitem__(0),
    "a block made dense": lambda m: setattr(m.model.layers[0], "mlp", nn.Identity()),
}


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.sampled(3)
def test_another_structure_is_refused_at_once(change: str, tmp_path: Path) -> None:
    model, ids = small.mixtral(), small.ids()
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model(ids)
        CHANGES[change](model)
        with pytest.raises(ModelError, match="end the Tracer first, and begin another"):
            model(ids)
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(1,)]
    with torch.no_grad():
        model(ids)


def test_what_is_no_router_may_be_replaced(tmp_path: Path) -> None:
    model, ids = small.mixtral(), small.ids()
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model(ids)
        model.lm_head = nn.Linear(32, 97, bias=False)
        model.model.layers[0].self_attn.q_proj = nn.Linear(32, 32, bias=False)
        small.mixtral(seed=3)
        model(ids)
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(2,)]


def _rows(path: Path) -> list[Any]:
    with moescope.open(path) as store:
        return store.rows("select forward, router, token, rank, expert, weight from assignments order by all")


def test_compiled_inside_the_block(tmp_path: Path) -> None:
    """Where the graph may break at a hook, compiled code is recorded as it runs."""
    model, ids = small.mixtral(), small.ids()
    for path, compiled in (("plain", False), ("compiled", True)):
        torch._dynamo.reset()
        with moescope.Tracer(model, tmp_path / f"{path}.duckdb"), torch.no_grad():
            run = torch.compile(model, backend="eager") if compiled else model
            for _ in range(2):
                run(ids, use_cache=False)
    assert _rows(tmp_path / "compiled.duckdb") == _rows(tmp_path / "plain.duckdb")


def test_a_full_graph_is_refused_with_our_sentence(tmp_path: Path) -> None:
    model, ids = small.mixtral(), small.ids()
    torch._dynamo.reset()
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model(ids)
        with pytest.raises(Exception, match="moescope reads routers in Python, which cannot be part of a full graph"):
            torch.compile(model, backend="eager", fullgraph=True)(ids, use_cache=False)
        model(ids)
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(2,)]
    torch._dynamo.reset()
    torch.compile(model, backend="eager", fullgraph=True)(ids, use_cache=False)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("strict", [False, True])
def test_exported_inside_the_block(strict: bool, tmp_path: Path) -> None:
    """Nothing is executed, so nothing is recorded, and the program is the one of an untraced model."""
    model, ids = small.mixtral(), small.ids()
    model.config.use_cache = False
    with torch.no_grad():
        plain = torch.export.export(model, (ids,), strict=strict)
        with moescope.Tracer(model, tmp_path / "run.duckdb"):
            model(ids)
            inside = torch.export.export(model, (ids,), strict=strict)
            model(ids)
    assert [n.target for n in inside.graph.nodes] == [n.target for n in plain.graph.nodes]
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(2,)]


def test_fake_tensors_are_no_forward(tmp_path: Path) -> None:
    model, ids = small.mixtral(experts_implementation="eager"), small.ids()
    model.set_experts_implementation("batched_mm")
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model(ids)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model(torch.zeros(2, 3, dtype=torch.long))
        model(ids)
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(2,)]
        ((warnings,),) = store.rows("select warnings from runs")
    assert "1 forwards ran on tensors without values" in warnings


def test_a_jit_trace_is_no_forward(tmp_path: Path) -> None:
    model, ids = small.mixtral(), small.ids()
    model.config.use_cache = False
    model.set_experts_implementation("batched_mm")
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model(ids)
        with suppress(Exception):  # of a model that TorchScript cannot trace, with or without us
            torch.jit.trace(model, (ids,), check_trace=False)
        model(ids)
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(2,)]
