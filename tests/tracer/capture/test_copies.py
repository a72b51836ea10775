"""Hooks belong to the traced model alone: copies, pickles and replicas are made without them, and stay out of its run."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch import nn

import moescope
from moescope.models import tiny


def _saved(model: nn.Module) -> Any:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "torch.save": _saved,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "averaged": lambda model: torch.optim.swa_utils.AveragedModel(model).module,
    "part": lambda model: copy.deepcopy(nn.ModuleList([model])),
}


def _ours(model: nn.Module) -> list[str]:
    """What of moescope is left on a model, hooks and attributes, by path."""
    return [
        f"{name}.{where}"
        for name, module in model.named_modules()
        for where, value in vars(module).items()
        for thing in ([value, *value.values()] if isinstance(value, dict) else [value])
        if type(thing).__module__.startswith("moescope.hooks")
    ]


@pytest.mark.parametrize("family", ["mixtral", "jamba", "llama4_text", "switch_transformers", "nllb-moe", "jetmoe", "doge"])
@pytest.mark.parametrize("kind", list(COPIES))
@pytest.mark.sampled(4)
def test_a_copy_made_inside_the_block_is_no_part_of_the_run(kind: str, family: str, tmp_path: Path) -> None:
    built = tiny.build(family)
    with moescope.Tracer(built.model, tmp_path / "run.duckdb", inputs=built.inputs), torch.no_grad():
        mine = built.model(**built.inputs)
        other = COPIES[kind](built.model)
        inner = other[0] if isinstance(other, nn.ModuleList) else other
        for _ in range(3):
            theirs = inner.eval()(**built.inputs)
        assert not _ours(other)
        assert _ours(built.model)
    assert torch.equal(mine[0], theirs[0]) or mine[0].dim() == 0
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(1,)]
    assert not _ours(built.model)
    assert [len(m._forward_hooks_with_kwargs) for m in other.modules()] == [0] * len(list(other.modules()))


def test_users_hooks_stay_on_copies_and_ours_do_not(tmp_path: Path) -> None:
    model, seen = small.mixtral(), []
    model.register_forward_pre_hook(lambda *_, **__: seen.append("before"), with_kwargs=True)
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model.register_forward_hook(lambda *_: seen.append("after"))
        seen.clear()
        copy.deepcopy(model)(small.ids())
        assert seen == ["before", "after"]
        model(small.ids())


def test_a_shallow_copy_shares_what_is_traced(tmp_path: Path) -> None:
    """`copy.copy` has the traced modules themselves below it: what runs there is recorded, or said to be left out."""
    model, ids = small.mixtral(), small.ids()
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model(ids)
        copy.copy(model)(ids + 1)
        copy.copy(model.model.layers[0].mlp)(torch.rand(1, 3, 32))
    with moescope.open(tmp_path / "run.duckdb") as store:
        texts = store.rows("select list(vocab_id order by position) from tokens group by sequence order by sequence")
        ((warnings,),) = store.rows("select warnings from runs")
    assert [t for (t,) in texts] == [*ids.tolist(), *(ids + 1).tolist()]
    assert "routers fired 1 times outside of a forward of MixtralForCausalLM" in warnings


def test_a_copy_can_be_traced_beside_its_model(tmp_path: Path) -> None:
    model, ids = small.mixtral(), small.ids()
    with moescope.Tracer(model, tmp_path / "one.duckdb"), torch.no_grad():
        twin = copy.deepcopy(model)
        with moescope.Tracer(twin, tmp_path / "two.duckdb"):
            twin(ids)
            model(ids)
            twin(ids)
    for name, count in (("one", 1), ("two", 2)):
        with moescope.open(tmp_path / f"{name}.duckdb") as store:
            assert store.rows("select count(*) from forwards") == [(count,)]
