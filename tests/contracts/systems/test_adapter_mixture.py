"""Mixtures of adapters, of our own and of packages: every decision is the rule's, and another one is executed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adapter_rules as rules
import pytest
import torch
from mixtures import sites, traced, written
from torch import nn

import moescope
from moescope.contracts import Site
from moescope.models.packages import mixlora as mixlora_tiny
from moescope.models.packages import peft as peft_tiny
from moescope.models.sources import unwrap
from moescope.models.zoo.adapters import adamix, lora_moe, mocle, moe_lora, mole, mov, omni_smola
from moescope.tracer import Options


@dataclass
class System:
    """How a model is made, its rule, and what each of its sites says of itself."""

    build: Callable[[Path], Any]
    rule: rules.Rule
    kind: str
    weight_on: str
    unit: str
    places: set[str]
    names: list[str] = field(default_factory=list)
    package: str = ""
    tasks: bool = False


Q, V, DOWN = "attention.q_proj", "attention.v_proj", "ffn.down_proj"
FFN = {"ffn.gate_proj", "ffn.up_proj", DOWN}
LORAS = ["0", "1", "2"]
SYSTEMS = {
    "lora_moe": System(
        lambda _: lora_moe.build(), rules.lora_moe, "dense", "delta", "token", FFN, ["world 0", "world 1", "task 2", "task 3"]
    ),
    "moe_lora tokens": System(lambda _: moe_lora.build(), rules.moe_lora_tokens, "token_choice", "delta", "token", {Q, V}),
    "moe_lora tasks": System(
        lambda _: moe_lora.build(rule="tasks"), rules.moe_lora_tasks, "dense", "delta", "sequence",
        {f"attention.{n}_proj" for n in "qkvo"}, tasks=True,
    ),
    "mov": System(lambda _: mov.build(), rules.mov, "dense", "parameters", "token", {"attention.k_proj", V, DOWN}),
    "mole": System(lambda _: mole.build(), rules.mole, "dense", "delta", "sequence", {"block"}, ["lora 0", "lora 1", "lora 2"]),
    "mole masked": System(
        lambda _: mole.build(masked=(1,)), rules.mole, "dense", "delta", "sequence", {"block"}, ["lora 0", "lora 1", "lora 2"]
    ),
    "mocle": System(lambda _: mocle.build(), rules.mocle, "token_choice", "delta", "sequence", {Q, V, DOWN}, ["universal"]),
    "omni_smola": System(
        lambda _: omni_smola.build(), rules.omni_smola, "soft", "delta", "token",
        {f"ffn.{p}_proj.{w}" for p in ("up", "down") for w in ("text", "image", "both")},
    ),
    "adamix": System(lambda _: adamix.build(), rules.adamix, "dense", "parameters", "batch", {"ffn.down", "ffn.up"}),
    "xlora": System(peft_tiny.xlora, rules.xlora, "dense", "input", "token", {Q, DOWN}, LORAS, "peft"),
    "xlora top": System(
        lambda f: peft_tiny.xlora(f, top_k_lora=2), rules.xlora, "token_choice", "input", "token", {Q, DOWN}, LORAS, "peft"
    ),
    "xlora top, softmax": System(
        lambda f: peft_tiny.xlora(f, top_k_lora=2, enable_softmax_topk=True), rules.xlora, "token_choice", "input", "token",
        {Q, DOWN}, LORAS, "peft",
    ),
    "arrow": System(
        peft_tiny.arrow, rules.arrow, "token_choice", "delta", "token", {Q, DOWN}, ["task_0", "task_1", "task_2"], "peft"
    ),
    "poly": System(peft_tiny.poly, rules.poly, "dense", "parameters", "sequence", {Q, DOWN}, [], "peft", tasks=True),
    "poly in splits": System(
        lambda f: peft_tiny.poly(f, splits=2), rules.poly, "dense", "parameters", "sequence", {Q, DOWN},
        [f"split {q} skill {s}" for q in range(2) for s in range(4)], "peft", tasks=True,
    ),
    "lily": System(peft_tiny.lily, rules.lily, "dense", "parameters", "batch", {Q, DOWN}, [], "peft"),
    "mixlora": System(mixlora_tiny.mixlora, rules.mixlora, "token_choice", "output", "token", {"ffn"}, [], "mixlora"),
}  # fmt: skip


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> System:
    found = SYSTEMS[request.param]
    if found.package:
        pytest.importorskip(found.package, reason=f"{found.package} is not installed")
    return found


def made(system: System, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A model and one batch, whose second sequence is shorter where the model looks at tokens alone."""
    model = system.build(folder)
    inputs = peft_tiny.inputs() if system.package else lora_moe.example(model)
    tasks = {"task_ids": torch.arange(len(inputs["input_ids"])).flip(0)} if system.tasks else {}
    return model, inputs | tasks


def watch(model: nn.Module) -> tuple[dict[str, Site], dict[str, tuple[Any, ...]]]:
    """The sites by path, and what their blocks take as the model runs."""
    found, took = sites(unwrap(model)), {}
    for path, site in found.items():
        site.block.register_forward_pre_hook(
            lambda _, args, kwargs, path=path: took.update({path: (*args, *kwargs.values())}), with_kwargs=True
        )
    return found, took


def stored(store: Path, path: str) -> list[tuple[int, float]]:
    """(expert, weight) of every assignment of a router, by row and slot."""
    with moescope.open(store) as opened:
        return opened.rows(
            "select a.expert, a.weight from assignments a join routers r using (router) join tokens t using (token) "
            "where r.name = ? order by t.sequence, t.position, a.slot", [path],
        )  # fmt: skip


@pytest.mark.sampled(6)
def test_stored(system: System, tmp_path: Path) -> None:
    """What is in the store is the rule, applied again to what each projection took."""
    model, inputs = made(system, tmp_path)
    found, took = watch(model)
    proof = traced(model, inputs, tmp_path / "a.duckdb")
    assert {p.router for p in proof} == set(found)
    assert all(p.identical and p.error < 1e-5 for p in proof)
    for path, site in found.items():
        experts, weights = system.rule(model, site.block, took[path], inputs)
        assert (site.kind, site.weight_on, site.unit) == (system.kind, system.weight_on, system.unit)
        if system.unit == "token" and system.kind != "soft":
            real = inputs["attention_mask"].flatten().bool()
            experts, weights = experts[real], weights[real]
        wanted = [(e, w) for e, w in zip(experts.flatten().tolist(), weights.flatten().tolist()) if e >= 0]
        held = stored(tmp_path / "a.duckdb", path)
        assert [e for e, _ in held] == [e for e, _ in wanted]
        assert [w for _, w in held] == pytest.approx([w for _, w in wanted], abs=2e-5)
    assert {site.block_type for site in found.values()} == system.places
    assert {name for site in found.values() for name in site.expert_names.values()} == set(system.names)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("change", ["half", "the first alone"])
def test_written(system: System, change: str, tmp_path: Path) -> None:
    """Another decision is executed and heard, and what follows from it is what the projection gives."""
    model, inputs = made(system, tmp_path)
    for site in sites(unwrap(model)).values():
        edit = {"half": lambda e, w: (e, w / 2), "the first alone": lambda e, w: (e, w * (e == e[:, :1]))}[change]
        wanted: list[Any] = []
        before, after, record, follows = written(unwrap(model), inputs, site, lambda e, w, edit=edit,
            wanted=wanted: wanted.append(edit(e, w)) or wanted[-1])  # fmt: skip
        assert torch.allclose(after, follows, atol=1e-5 * float(before.abs().max()))
        assert (after - before).abs().max() > 1e-3 * before.abs().max()
        alive = (record.experts >= 0) & (wanted[-1][1] != 0)
        assert torch.equal(record.experts[alive], wanted[-1][0][alive])
        assert torch.allclose(record.weights[alive], wanted[-1][1][alive])


@pytest.mark.sampled(6)
def test_left_as_it_was(system: System, tmp_path: Path) -> None:
    """After a trace the model computes what it did, and holds nothing of ours."""
    model, inputs = made(system, tmp_path)
    with torch.no_grad():
        before = model(**inputs).logits
        attributes = {name: set(vars(m)) for name, m in model.named_modules()}
        traced(model, inputs, tmp_path / "a.duckdb")
        assert torch.equal(model(**inputs).logits, before)
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes


@pytest.mark.sampled(6)
def test_said(system: System, tmp_path: Path) -> None:
    """The store says what a decision is about and what adapters are called; activations are summed up where it is a token."""
    model, inputs = made(system, tmp_path)
    options = Options(activations=["importance"])
    with moescope.Tracer(model, tmp_path / "a.duckdb", inputs=inputs, options=options), torch.no_grad():
        model(**inputs)
    by_token = system.unit == "token" and system.kind != "soft"
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select distinct decides_on from routers") == [(system.unit,)]
        units = {"token": "text"}.get(system.unit, system.unit)
        assert store.rows("select distinct unit from tokens") == [(units,)]
        names = store.rows("select distinct expert_name from experts where expert_name is not null order by all")
        assert [name for (name,) in names] == sorted(system.names)
        summed = store.rows("select sum(n) from measures where name = 'ean'")[0][0]
        ran = store.rows("select count(*) from assignments join experts using (router, expert) where role = 'routed'")[0][0]
        assert summed == (ran if by_token else None)
        assert ("was not summed up" in store.rows("select warnings from runs")[0][0]) == (not by_token)


def test_soft_share(tmp_path: Path) -> None:
    """What a slot takes of each token, apart from what the token gets back: softmax over the tokens of its kind."""
    model = omni_smola.build()
    inputs = omni_smola.example(model)
    found, took = watch(model)
    traced(model, inputs, tmp_path / "a.duckdb")
    for path, site in found.items():
        block: Any = site.block
        wanted = []
        for x, real in zip(took[path][0], rules.soft_tokens(block, inputs)):
            x = x[real]
            turned = x / x.norm(dim=-1, keepdim=True) @ (block.phi / block.phi.norm(dim=0)) * block.scale
            wanted += turned.softmax(0).flatten().tolist()
        with moescope.open(tmp_path / "a.duckdb") as store:
            held = store.rows(
                "select a.dispatch_weight from assignments a join routers r using (router) join tokens t using (token) "
                "where r.name = ? order by t.sequence, t.position, a.slot", [path],
            )  # fmt: skip
        assert [w for (w,) in held] == pytest.approx(wanted, abs=2e-5)


def test_training_draws() -> None:
    """AdaMix in training: one copy for the whole batch, drawn anew at each projection; what ran is what is heard."""
    model = adamix.build().train()
    heard: list[Any] = []
    handles = [h for site in sites(model).values() for h in site.contract.listen(site, heard.append)]
    for seed in range(20):
        torch.manual_seed(seed)
        model(**adamix.example(model))
    for handle in handles:
        handle.remove()
    assert {tuple(r.experts.shape) for r in heard} == {(1, 1)}
    assert {int(r.experts) for r in heard} == {0, 1, 2, 3}
    assert {float(r.weights) for r in heard} == {1.0}
