"""DeepSpeed's gates: what is stored is what a recount of their rule gives, chance, dropped tokens and residual MLP too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mixtures import close, expected, replayed, rows, sites, traced, written
from torch import Tensor, nn

from moescope.errors import ModelError, ProofFailed
from moescope.models.zoo._parts_adapters import example_text

pytest.importorskip("deepspeed", reason="deepspeed is not installed")
from moescope.models.packages import deepspeed as deepspeed_tiny

FORMS = deepspeed_tiny.FORMS
NOISY: dict[str, dict[str, Any]] = {
    "jitter": {"k": 1, "noisy_gate_policy": "Jitter"},
    "rsample": {"k": 1, "noisy_gate_policy": "RSample"},
    "jitter top3": {"k": 3, "noisy_gate_policy": "Jitter"},
}


@pytest.fixture(scope="module", autouse=True)
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with deepspeed_tiny.one_process(tmp_path_factory.mktemp("group")):
        yield


def heard(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """What each gate is given, and the random state that it draws from, by path; filled as the model runs."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "TopKGate":
            module.register_forward_pre_hook(
                lambda _, args, name=name: found.update({name: (args[0].clone(), torch.get_rng_state())})
            )
    return found


def recount(gate: Any, hidden: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(T, k) experts, weights, dropped, places, by the rules of the three gates with capacity ceil(k T / E · factor)."""
    p = (hidden @ gate.wg.weight.T).softmax(-1)
    count, total = p.shape[1], len(p)
    capacity = -(-total * gate.k * gate.eval_capacity_factor // count)
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    if gate.k == 1:
        experts = p.argmax(-1, keepdim=True)
        hot = torch.nn.functional.one_hot(experts[:, 0], count)
        lot = hot * (torch.rand(hot.shape) if gate.use_rts else 1)
        kept = torch.zeros_like(hot).scatter(0, lot.topk(int(capacity), dim=0).indices, 1) * hot
        dropped, places = kept.sum(-1, keepdim=True) == 0, (kept.cumsum(0) - 1).gather(1, experts)
        weights = p.gather(1, experts)
    elif gate.k == 2:
        logits = hidden @ gate.wg.weight.T
        first = p.argmax(-1)
        noise = -torch.log(-torch.log(torch.rand(p.shape))) if gate.top2_2nd_expert_sampling else 0.0
        rest = (logits + noise).scatter(1, first[:, None], float("-inf"))
        experts = torch.stack((first, rest.argmax(-1)), -1)
        one, two = (torch.nn.functional.one_hot(e, count) for e in experts.unbind(1))
        places = torch.stack(
            (
                (one.cumsum(0) - 1).gather(1, experts[:, :1])[:, 0],
                (two.cumsum(0) - 1 + one.sum(0)).gather(1, experts[:, 1:])[:, 0],
            ),
            -1,
        )
        dropped = places >= capacity if gate.drop_tokens else torch.zeros_like(places, dtype=torch.bool)
        weights = p.gather(1, experts)
    else:
        weights, experts = p.topk(gate.k, dim=-1)
        wanted = torch.zeros_like(p).scatter(1, experts, weights)
        best = torch.zeros_like(p, dtype=torch.bool).scatter(0, wanted.topk(min(int(capacity), total), dim=0).indices, True)
        kept = best & (wanted > 0)
        dropped, places = ~kept.gather(1, experts), (kept.cumsum(0) - 1).gather(1, experts)
    torch.set_rng_state(before)
    weights = weights.masked_fill(dropped, 0)
    if gate.k > 1:
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).eps)
    return experts, weights, dropped, places.masked_fill(dropped, 0)


@pytest.mark.parametrize("form", FORMS)
def test_stored(form: str, tmp_path: Path) -> None:
    """Every route of a pyramid of 4 and 8 experts is stored; a dropped one with the expert that had no room for it."""
    model = deepspeed_tiny.build(**FORMS[form])
    inputs, seen = example_text(model), heard(model)
    proof = traced(model, inputs, tmp_path / "a.duckdb")
    assert all(p.identical and p.error < 1e-6 for p in proof)
    shape = inputs["input_ids"].shape
    lost = 0
    for name, (hidden, state) in seen.items():
        gate: Any = model.get_submodule(name)
        found = recount(gate, hidden, state)
        experts, weights, dropped, places = (t.view(*shape, -1) for t in found)
        stored = rows(tmp_path / "a.duckdb", name)
        assert close([(*r[:6], None if r[5] else r[6]) for r in stored], [
            (*r[:6], None if r[5] else r[6]) for r in expected(experts, weights, inputs["attention_mask"], dropped, places)
        ])  # fmt: skip
        lost += int(dropped.sum())
    assert (lost > 0) == FORMS[form].get("drop_tokens", True)


def test_residual(tmp_path: Path) -> None:
    """PR-MoE's coefficient is a router of two: the mixture, and the MLP in the role `residual`."""
    import moescope

    model = deepspeed_tiny.build(**FORMS["residual"])
    inputs, given = example_text(model), []
    model.layers[1].mlp.register_forward_pre_hook(lambda _, args: given.append(args[0]))  # type: ignore[union-attr, index]
    traced(model, inputs, tmp_path / "a.duckdb")
    layer: Any = model.get_submodule("layers.1.mlp")
    weights = (given[-1] @ layer.coefficient.weight.T + layer.coefficient.bias).softmax(-1).detach()
    experts = torch.arange(2).expand_as(weights)
    assert close(rows(tmp_path / "a.duckdb", "layers.1.mlp.coefficient"), expected(experts, weights, inputs["attention_mask"]))
    with moescope.open(tmp_path / "a.duckdb") as store:
        roles = store.rows(
            "select distinct expert, e.role from experts e join routers using (router) where routers.name like '%coefficient'"
        )
    assert sorted(roles) == [(0, "routed"), (1, "residual")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", ["next expert", "half", "none at all"])
def test_written(form: str, change: str) -> None:
    """Another decision is executed, heard, and what follows from it is what the layer gives."""
    model = deepspeed_tiny.build(**FORMS[form])
    inputs = example_text(model)
    for site in sites(model).values():
        alone = site.special_experts > 0
        if alone and change == "next expert":
            continue
        edit = {
            "next expert": lambda e, w, n=site.n_experts: (torch.where(e < 0, e, (e + 1) % n), w),
            "half": lambda e, w: (e, w / 2),
            "none at all": lambda e, w: (torch.full_like(e, -1), w * 0),
        }[change]
        wanted: list[Any] = []
        before, after, record, follows = written(model, inputs, site, lambda e, w, edit=edit, wanted=wanted: (
            wanted.append(edit(e, w)) or wanted[-1]
        ))  # fmt: skip
        assert torch.allclose(after, follows, atol=1e-5 * float(before.abs().max()))
        assert (after - before).abs().max() > 1e-2 * before.abs().max()
        assert torch.equal(record.weights, wanted[-1][1])
        assert alone or torch.equal(record.experts, wanted[-1][0])


@pytest.mark.parametrize("form", FORMS)
def test_replayed(form: str) -> None:
    """Another draw (of tokens that find room, of second experts) is overruled by the routes of the first one."""
    model = deepspeed_tiny.build(**FORMS[form])
    first, other, again = replayed(model, example_text(model))
    assert torch.allclose(again, first, atol=1e-5)
    assert torch.equal(other, first) == (form not in ("top1", "top2", "residual", "no drops"))


@pytest.mark.parametrize("form", [*FORMS, *NOISY])
def test_draws(form: str) -> None:
    """Listening draws nothing of its own: the loss in training is the same with and without, and so is the random state."""
    model = deepspeed_tiny.build(**(FORMS | NOISY)[form]).train()
    inputs = example_text(model)

    def run() -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        return model(**inputs, labels=inputs["input_ids"]).loss.detach(), torch.get_rng_state()

    alone = run()
    heard: list[Any] = []
    handles = [h for site in sites(model).values() for h in site.contract.listen(site, heard.append)]
    listened = run()
    for handle in handles:
        handle.remove()
    assert torch.equal(alone[0], listened[0])
    assert torch.equal(alone[1], listened[1])
    for record in heard:
        if record.dropped is not None:
            kept = ~record.dropped
            assert (record.experts >= 0).all()
            assert (record.weights[kept] > 0).all()


@pytest.mark.parametrize("form", NOISY)
def test_dropped_under_noise(form: str) -> None:
    """In training with noise the dropped expert is the one that was drawn: as many are wanted of each as the gate counted."""
    model = deepspeed_tiny.build(**NOISY[form]).train()
    inputs, counted, heard = example_text(model), [], []
    for module in model.modules():
        if type(module).__name__ == "TopKGate":
            module.register_forward_hook(lambda _, __, out: counted.append(out[6].clone()))
    handles = [h for site in sites(model).values() for h in site.contract.listen(site, heard.append)]
    model(**inputs)
    for handle in handles:
        handle.remove()
    for record, counts in zip(heard, counted):
        assert torch.bincount(record.experts.flatten(), minlength=len(counts)).tolist() == counts.tolist()
        assert bool(record.dropped.any())


def test_refused() -> None:
    """A gate that is called alone gives no routes, and old gates give none at all: each is said in a sentence."""
    model = deepspeed_tiny.build(k=1)
    gate: Any = model.get_submodule("layers.0.mlp.deepspeed_moe.gate")
    site = sites(model)["layers.0.mlp.deepspeed_moe.gate"]
    handles = site.contract.listen(site, lambda _: None)
    with pytest.raises(ModelError, match=r"gate layers\.0\.mlp\.deepspeed_moe\.gate was called alone"):
        gate(torch.randn(10, 32))
    for handle in handles:
        handle.remove()
    old = {"forward": lambda self, input, used_token=None, use_tutel=False: None}
    gate.__class__ = type("TopKGate", (type(gate),), old)
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.deepspeed_moe is of a DeepSpeed .* install deepspeed>=0\.19\.8"):
        sites(model)


def test_unused_tokens() -> None:
    """Tokens that the layer is told not to route have no expert, and are not called dropped."""
    model = deepspeed_tiny.build(k=1, eval_capacity_factor=4.0)
    layer: Any = model.get_submodule("layers.0.mlp")
    (site,) = sites(layer).values()
    heard: list[Any] = []
    handles = site.contract.listen(site, heard.append)
    used = torch.tensor([1, 0] * 5)
    layer(torch.randn(2, 5, 32), used)
    for handle in handles:
        handle.remove()
    assert ((heard[0].experts[:, 0] >= 0).int() == used).all()
    assert not heard[0].dropped.any()


def test_other_processes(tmp_path: Path) -> None:
    """Experts of which this process holds a part cannot be proved."""
    model = deepspeed_tiny.build(k=1, eval_capacity_factor=4.0)
    experts: Any = model.get_submodule("layers.0.mlp.deepspeed_moe.experts")
    experts.deepspeed_experts = experts.deepspeed_experts[:2] + nn.ModuleList()

    def pretend(inputs: Tensor) -> Tensor:
        return inputs

    experts.forward = pretend
    with pytest.raises(ProofFailed, match=r"has 2 of its 4 experts in this process.*ep_size=1"):
        traced(model, example_text(model), tmp_path / "a.duckdb")
    assert not (tmp_path / "a.duckdb").exists()
