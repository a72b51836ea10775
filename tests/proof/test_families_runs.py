"""Layers that do not do what their routers say, and ways of running that could be recorded twice or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tinies import seen, traced

import moescope
from moescope.contracts import find
from moescope.contracts.top2_mask import WARNING, decision, execution
from moescope.models import tiny
from moescope.proof import observed, prove, proving


def test_nllb_is_recorded_as_executed_with_its_mismatch_said(tmp_path: Path) -> None:
    """Experts 0 and 1 run whatever the router decides; the decision is kept beside, and the run warns."""
    built, sites, _ = seen("nllb-moe")
    ran: set[str] = set()
    names = [n for n, _ in built.model.named_modules() if ".experts.expert_" in n and n.count(".", n.index("expert_")) == 0]
    hooks = [
        built.model.get_submodule(n).register_forward_pre_hook(
            lambda *_, n=n: None if proving() else ran.add(n.rpartition(".")[2])  # a proof has others run too
        )
        for n in names
    ]
    with traced(built, tmp_path / "s.duckdb") as store:
        executed = store.rows("select distinct expert from assignments order by 1")
        decided = store.rows("select count(distinct expert) from decided")
        ((warnings,),) = store.rows("select warnings from runs")
    for hook in hooks:
        hook.remove()
    assert executed == [(0,), (1,)]
    assert ran == {"expert_0", "expert_1"}
    assert decided[0][0] > 2
    assert WARNING in warnings
    assert sites[0].path in warnings


def test_nllb_without_the_fault_is_recorded_as_decided() -> None:
    """The same contract on a layer that reads its mask as a mask: found out by running it, no warning, proved."""
    built = tiny.build("nllb-moe")
    for module in built.model.modules():
        if type(module).__name__ == "NllbMoeExperts":
            module.forward = _mended.__get__(module)  # type: ignore[method-assign]
    sites = find(built.model)
    proved = prove(built.model, sites, built.inputs)
    assert all(p.identical for p in proved)
    assert not any(s.warning for s in sites)


def _mended(self: Any, hidden: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(hidden)
    for number in range(self.num_experts):
        rows = weights[:, number].nonzero()[:, 0]
        if len(rows):
            out[rows] += self[f"expert_{number}"](hidden[rows]) * weights[rows, number, None] * (1 - self.moe_token_dropout)
    return out


def test_masks_read_two_ways() -> None:
    """A first choice 3, a second 5; then one without room for its first."""
    mask = torch.zeros(2, 8, dtype=torch.long)
    mask[0, 3] = 1
    weights = torch.zeros(2, 8)
    weights[0, 3], weights[0, 5], weights[1, 2] = 0.7, 0.3, 0.4
    assert [t.tolist() for t in decision(mask, weights)] == [
        [[3, 5], [-1, 2]],
        [[pytest.approx(0.7), pytest.approx(0.3)], [0, pytest.approx(0.4)]],
    ]
    assert [t.tolist() for t in execution(mask, weights)] == [
        [[1, 0], [-1, 0]],
        [[pytest.approx(0.7), pytest.approx(0.3)], [0, pytest.approx(0.4)]],
    ]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "switch_transformers"])
def test_gradient_checkpointing_is_recorded_once(name: str, reentrant: bool, tmp_path: Path) -> None:
    """Routers fire again in the backward pass; a token has one decision per router all the same."""
    built = tiny.build(name)
    built.model.train()
    built.model.gradient_checkpointing_enable({"use_reentrant": reentrant})  # type: ignore[operator]
    built.model.enable_input_require_grads()  # type: ignore[operator]
    fired = []
    hook = find(built.model)[0].router.register_forward_hook(lambda *_: fired.append(1))  # type: ignore[union-attr]
    with moescope.Tracer(built.model, tmp_path / "s.duckdb", inputs=built.inputs) as tracer:
        before = len(fired)
        built.model(
            **built.inputs, labels=built.inputs.get("decoder_input_ids", built.inputs["input_ids"]), use_cache=False
        ).loss.backward()
    assert len(fired) - before == 2
    hook.remove()
    with moescope.open(tmp_path / "s.duckdb") as store:
        rows = store.rows("select router, count(*), count(distinct token) from decisions group by 1")
        assert store.rows("select phase, count(*) from forwards group by 1") == [("train", 1)]
    tokens = {"encoder": 20, "decoder": 24 if name == "switch_transformers" else 20}
    assert sorted(rows) == [(s.key, tokens[s.stack], tokens[s.stack]) for s in tracer.sites]


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_implementations_of_experts_agree(implementation: str) -> None:
    """The decision is read before it matters how experts are computed."""
    built = tiny.build("mixtral")
    built.model.set_experts_implementation(implementation)  # type: ignore[operator]
    proved = prove(built.model, find(built.model), built.inputs)
    assert all(p.identical for p in proved)


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_offloaded_weights_are_proved_and_traced(name: str, tmp_path: Path) -> None:
    """Parameters on meta until a module runs, as Accelerate leaves them on disk or CPU when a model does not fit."""
    accelerate = pytest.importorskip("accelerate")
    built = tiny.build(name)
    _, _, expected = seen(name)
    accelerate.cpu_offload(built.model, execution_device=torch.device("cpu"))
    assert {p.device.type for p in built.model.parameters()} == {"meta"}
    sites = find(built.model)
    prove(built.model, sites, built.inputs)
    with observed(sites) as calls, torch.no_grad():
        built.model(**built.inputs)
    for site in sites:
        assert torch.equal(calls[site.name][0].record.experts, expected[site.path].experts)


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="no GPU here; with one, half of the layers go there")
def test_layers_on_two_devices(tmp_path: Path) -> None:
    """A device map over CPU and GPU: one store, every layer."""
    accelerate = pytest.importorskip("accelerate")
    built = tiny.build("mixtral")
    model: Any = built.model
    places: dict[str, Any] = {f"model.layers.{i}": "cpu" if i < 2 else 0 for i in range(4)}
    places |= {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": 0, "lm_head": 0}
    accelerate.dispatch_model(model, places, main_device="cpu")
    with traced(built, tmp_path / "s.duckdb") as store:
        assert store.rows("select router, count(*) from decisions group by 1 order by 1") == [(i, 20) for i in range(4)]
