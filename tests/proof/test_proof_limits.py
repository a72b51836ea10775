"""What a proof can show: tolerance by the dtype's own steps, what tells nothing is said, and once is enough."""

from pathlib import Path
from typing import Any

import pytest
import small
import torch

import moescope
from moescope.contracts import find
from moescope.errors import ProofFailed
from moescope.proof import example_inputs, prove, proved
from moescope.proof import remembered as memory
from moescope.weights import as_bytes


def _prove(model: Any) -> list[Any]:
    return prove(model, find(model), example_inputs(model))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 3e-6, 1e-7])
def test_outputs_near_zero_are_proved(scale: float, dtype: torch.dtype) -> None:
    """In float16 everything below 6e-5 is rounded to steps of 6e-8, so a share of the largest value says nothing there."""
    model = small.mixtral().to(dtype)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.experts.down_proj.mul_(scale)
    assert [p.identical for p in _prove(model)] == [True, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_wrong_experts_are_still_refused(dtype: torch.dtype) -> None:
    model = small.mixtral().to(dtype)
    sites = find(model)
    contract = sites[0].contract

    class Wrong(type(contract)):  # type: ignore[misc]
        def recompute(self, site: Any, inputs: Any, record: Any) -> Any:
            other = type(record)(**{**record.__dict__, "experts": (record.experts + 1) % 8})
            return super().recompute(site, inputs, other)

    for site in sites:
        site.contract = Wrong()
    with pytest.raises(ProofFailed, match="does not follow from what would be stored"):
        prove(model, sites, example_inputs(model))


def test_what_shows_nothing_is_said(tmp_path: Path) -> None:
    """Experts that give zeros (not trained yet) and experts that are copies of one (upcycled) are healthy, and prove little."""
    zero, alike = small.mixtral(), small.mixtral()
    with torch.no_grad():
        zero.model.layers[0].mlp.experts.down_proj.zero_()
        for weights in (alike.model.layers[1].mlp.experts.down_proj, alike.model.layers[1].mlp.experts.gate_up_proj):
            weights.copy_(weights[:1].expand_as(weights))
    assert ["zeros" in p.note for p in _prove(zero)] == [True, False]
    assert ["other experts" in p.note for p in _prove(alike)] == [False, True]
    with moescope.Tracer(alike, tmp_path / "run.duckdb"), torch.no_grad():
        alike(small.ids())
    with moescope.open(tmp_path / "run.duckdb") as store:
        ((warnings,),) = store.rows("select warnings from runs")
    assert "model.layers.1.mlp.gate: other experts would have given the same output" in warnings


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A proof that says when it is made."""
    made: list[Any] = []
    own = memory.prove
    monkeypatch.setattr(memory, "prove", lambda *args: made.append(1) or own(*args))
    return made


def _again(model: Any, **inputs: Any) -> list[Any]:
    sites = find(model)
    found = proved(model, sites, inputs or example_inputs(model))
    assert [(s.top_k, s.score) for s in sites] == [(s.router.top_k, "softmax") for s in sites]
    return found


def test_a_model_is_proved_once(counted: list[Any]) -> None:
    model = small.mixtral()
    first = _again(model)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
        model.train()
    assert _again(model) == first
    assert len(counted) == 1


CHANGES: dict[str, Any] = {
    "dtype": lambda m: m.bfloat16(),
    "experts": lambda m: setattr(m.model.layers[0], "mlp", small.mixtral(seed=2).model.layers[0].mlp),
    "a router": lambda m: setattr(m.model.layers[0].mlp, "gate", small.mixtral(seed=2).model.layers[0].mlp.gate),
    "a hook": lambda m: m.model.layers[0].mlp.experts.register_forward_pre_hook(lambda *_: None),
    "a forward": lambda m: setattr(m.model.layers[0].mlp.experts, "forward", m.model.layers[0].mlp.experts.forward),
    "a setting": lambda m: setattr(m.model.layers[0].mlp.gate, "top_k", 3),
    "configuration": lambda m: setattr(m.config, "router_jitter_noise", 0.5),
    "implementation": lambda m: m.set_experts_implementation("eager"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_it_is_proved_again_when_something_changed(change: str, counted: list[Any]) -> None:
    model = small.mixtral()
    _again(model)
    CHANGES[change](model)
    _again(model)
    assert len(counted) == 2


def test_other_inputs_are_another_proof(counted: list[Any]) -> None:
    model = small.mixtral()
    _again(model, input_ids=small.ids(2, 4))
    _again(model, input_ids=small.ids(2, 4))
    _again(model, input_ids=small.ids(2, 4, seed=1))
    assert len(counted) == 2


def test_steps_of_a_loop_are_proved_once(counted: list[Any], tmp_path: Path) -> None:
    model = small.mixtral()
    for _ in range(3):
        with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
            model(small.ids())
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("select r.run, count(*) from decisions join routers r using (router) group by r.run order by 1") == [
            (run, 28) for run in range(3)
        ]
    assert len(counted) == 1


@pytest.mark.parametrize("like", ["expanded", "one expanded", "transposed", "negated", "empty"])
def test_inputs_of_any_strides_are_remembered(like: str) -> None:
    """Pipelines hand their denoiser a timestep that was expanded over the batch; its bytes are read whatever its strides."""
    made = {
        "expanded": torch.tensor(7.0).expand(3),
        "one expanded": torch.tensor(7.0).expand(1),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
        "empty": torch.empty(0, 2),
    }
    bytes_ = [bytes(as_bytes(t).tolist()) for t in (made[like], made[like].clone(memory_format=torch.contiguous_format))]
    assert bytes_[0] == bytes_[1]
    assert len(bytes_[0]) == made[like].numel() * made[like].element_size()
