"""Adapters of PEFT on attention, routers and fused experts: proved, recorded as they ran, loaded from their folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small import ids, mixtral
from torch import Tensor, nn

import moescope
from moescope import interventions
from moescope.cli import main
from moescope.contracts import find
from moescope.models import tiny
from moescope.models.describe import weights_sha256
from moescope.models.loading import load
from moescope.proof import example_inputs, prove
from moescope.routers.calls import bare
from moescope.store.integrity.verify import verify

peft = pytest.importorskip("peft")

GATE_UP, DOWN, GATE = "mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"
# what is adapted; whose cosines are left out for it
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "attention": ({"target_modules": ["q_proj", "v_proj"]}, []),
    "attention, DoRA": ({"target_modules": ["q_proj"], "use_dora": True}, []),
    "one matrix of the experts": ({"target_parameters": [GATE_UP]}, ["expert"]),
    "both, one wrapper around the other": ({"target_parameters": [GATE_UP, DOWN]}, ["expert"]),
    "the router": ({"target_parameters": [GATE]}, ["router"]),
    "all of it": ({"target_modules": ["q_proj"], "target_parameters": [GATE_UP, DOWN, GATE]}, ["router", "expert"]),
    "rank-stabilized": ({"target_parameters": [GATE_UP, DOWN], "use_rslora": True, "lora_alpha": 64}, ["expert"]),
}


def adapted(kind: str, task: str | None = None, model: nn.Module | None = None) -> Any:
    """A tiny Mixtral with a random adapter that matters."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, init_lora_weights=False, task_type=task, **KINDS[kind][0])
    return peft.get_peft_model(mixtral() if model is None else model, config).eval()


def ran(model: nn.Module) -> list[tuple[int, int, int, int, float]]:
    """What the modules that hold the experts' weights were called with, by hooks of our own, and by nobody else's."""
    seen: list[tuple[Tensor, Tensor]] = []
    layers = model.get_base_model().model.layers if hasattr(model, "get_base_model") else model.model.layers
    hooks = [bare(x.mlp.experts).register_forward_pre_hook(lambda _, args: seen.append(args[1:])) for x in layers]
    with torch.no_grad():
        model(input_ids=ids())
    for hook in hooks:
        hook.remove()
    return [
        (n, t, s, int(expert), float(weight))
        for n, call in enumerate(seen)
        for t, row in enumerate(zip(*call))
        for s, (expert, weight) in enumerate(zip(*row))
    ]


def traced(model: Any, path: Path) -> tuple[list[tuple[Any, ...]], list[str], str]:
    """Rows of one forward, the run's warnings and the model's name; the store is sound."""
    with moescope.Tracer(model, path) as tracer, torch.no_grad():
        model(input_ids=ids())
    assert all(p.identical for p in tracer.proof)
    with moescope.open(path) as store:
        assert [check for check in verify(store) if check.broken] == []
        assert store.rows("select name, experts from routers order by 1") == [(f"model.layers.{n}.mlp.gate", 8) for n in (0, 1)]
        rows = store.rows("select router, token, slot, expert, weight from assignments order by all")
        warnings, name = store.rows(
            "select json_extract_string(r.warnings, '$[*]'), m.name from runs r join models m using (model)"
        )[0]
    return rows, list(warnings), name


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(6)
def test_traced_as_it_ran(tmp_path: Path, kind: str, task: str | None) -> None:
    model = adapted(kind, task)
    wanted = ran(model)
    rows, warnings, name = traced(model, tmp_path / "s.duckdb")
    assert rows == wanted
    assert name == "MixtralForCausalLM + default"
    assert warnings == [
        f"model.layers.0.mlp.gate and 1 more: {part} weights could not be read as the numbers that take part, so their cosines "
        "are left out"
        for part in KINDS[kind][1]
    ]
    with moescope.open(tmp_path / "s.duckdb") as store:
        (config,) = store.rows("select config from models")[0]
    assert json.loads(config)["adapters"]["default"]["r"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_proof_goes_through_the_adapter(kind: str) -> None:
    """What one expert makes of a token is what it makes with the adapter in it."""
    model = adapted(kind).get_base_model()
    merged = adapted(kind).merge_and_unload()
    found = []
    for one in (model, merged):
        sites = find(one)
        prove(one, sites, example_inputs(one))
        weight = torch.ones(2)
        hidden = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(torch.stack([site.contract.one(site, hidden, e, weight) for site in sites for e in range(8)]))
    scale = found[1].abs().max()
    assert float((found[0] - found[1]).abs().max() / scale) < 1e-5
    plain = mixtral()
    with torch.no_grad():
        without = torch.stack([site.contract.one(site, hidden, e, weight) for site in find(plain) for e in range(8)])
    assert (float((found[0] - without).abs().max() / scale) < 1e-5) == ("expert" not in KINDS[kind][1])


def test_merged_and_switched_off(tmp_path: Path) -> None:
    model = adapted("all of it")
    with model.disable_adapter():
        rows, _, name = traced(model, tmp_path / "off.duckdb")
    assert (rows, name) == (ran(mixtral()), "MixtralForCausalLM")
    model.merge_adapter()
    assert traced(model, tmp_path / "merged.duckdb")[0] == ran(model)
    unloaded = model.merge_and_unload()
    rows, warnings, name = traced(unloaded, tmp_path / "unloaded.duckdb")
    assert (rows, warnings, name) == (ran(unloaded), [], "MixtralForCausalLM")


def test_several_adapters_one_active(tmp_path: Path) -> None:
    model = adapted("both, one wrapper around the other")
    torch.manual_seed(2)
    model.add_adapter("second", peft.LoraConfig(r=3, init_lora_weights=False, target_parameters=[GATE_UP, DOWN]))
    names = []
    for adapter in ("default", "second"):
        model.set_adapter(adapter)
        rows, _, name = traced(model, tmp_path / f"{adapter}.duckdb")
        assert rows == ran(model)
        names.append(name)
    assert names == ["MixtralForCausalLM + default", "MixtralForCausalLM + second"]


def test_an_adapter_that_transformers_put_on(tmp_path: Path) -> None:
    model = mixtral()
    torch.manual_seed(1)
    model.add_adapter(
        peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj"], target_parameters=[GATE_UP]), "mine"
    )
    rows, _, name = traced(model.eval(), tmp_path / "s.duckdb")
    assert (rows, name) == (ran(model), "MixtralForCausalLM + mine")


def test_generation_and_training_steps(tmp_path: Path) -> None:
    """PEFT's own generate and a backward pass with the adapter's weights alone."""
    model = adapted("all of it", "CAUSAL_LM")
    wanted = model.generate(input_ids=ids(), max_new_tokens=3, do_sample=False)
    with moescope.Tracer(model, tmp_path / "s.duckdb"):
        assert torch.equal(model.generate(input_ids=ids(), max_new_tokens=3, do_sample=False), wanted)
        model(input_ids=ids(), labels=ids()).loss.backward()
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert store.rows("select count(distinct forward) from decisions") == [(4,)]
    learnt = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {name for name, p in model.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("edit", [interventions.Zero, interventions.RouteAround])
def test_experts_of_an_adapted_model_can_be_taken_out(edit: Any) -> None:
    model = adapted("all of it").get_base_model()
    before = ran(model)
    with interventions.intervene(model, edit(layers=0, experts=[before[0][3]])):
        after = ran(model)
    zero = edit is interventions.Zero
    used = [expert for router, _, _, expert, weight in after if router == 0 and weight]
    assert before[0][3] not in used
    assert (len(used) == 28) != zero


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_moe", "deepseek_v3", "switch_transformers"])
def test_families(tmp_path: Path, family: str) -> None:
    """Experts as parameters, with biases; routers as parameters; experts as modules."""
    built = tiny.build(family)
    linear = family == "switch_transformers"
    targets = {"target_modules": ["wi", "wo", "classifier"]} if linear else {
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "gate.weight"]}  # fmt: skip
    if family == "gpt_oss":
        targets["target_parameters"][2] = "router.weight"
    plain = [site.path for site in find(built.model)]
    torch.manual_seed(1)
    model = peft.get_peft_model(built.model, peft.LoraConfig(r=2, init_lora_weights=False, **targets)).eval()
    with moescope.Tracer(model, tmp_path / "s.duckdb", inputs=built.inputs) as tracer, torch.no_grad():
        model(**built.inputs)
    assert sorted(site.path for site in tracer.sites) == sorted(plain)
    assert all(p.identical for p in tracer.proof)


def folders(tmp_path: Path, kind: str = "all of it", **changes: Any) -> tuple[Path, Path]:
    """A base model's folder and its adapter's, with the adapter's configuration changed."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    mixtral().save_pretrained(base)
    adapted(kind, "CAUSAL_LM").save_pretrained(adapter)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base)} | changes))
    np.savez(tmp_path / "data.npz", input_ids=ids().numpy())
    return base, adapter


def command(tmp_path: Path, adapter: Path, *more: str) -> Any:
    store = ["--store", str(tmp_path / "run.duckdb"), "--quiet"]
    return CliRunner().invoke(main, ["trace", str(adapter), "--data", str(tmp_path / "data.npz"), *store, *more])


@pytest.mark.parametrize("kind", ["attention", "all of it"])
def test_a_folder_is_traced_on_its_base(tmp_path: Path, kind: str) -> None:
    base, adapter = folders(tmp_path, kind)
    done = command(tmp_path, adapter)
    assert (done.exit_code, done.output) == (0, "")
    with moescope.open(tmp_path / "run.duckdb") as store:
        rows = store.rows("select router, token, slot, expert, weight from assignments order by all")
        assert store.rows("select name, family from models") == [(f"{base} + {adapter}", "mixtral")]
    model = adapted(kind)
    assert rows == ran(model)
    assert weights_sha256(load(adapter).model) == weights_sha256(model.get_base_model())
    assert "2 of 2 routers" in CliRunner().invoke(main, ["check", str(adapter)]).output


def test_a_base_beside_the_adapter_and_an_adapter_without_its_class(tmp_path: Path) -> None:
    _, adapter = folders(tmp_path, base_model_name_or_path="../base", task_type=None)
    assert load(adapter).name == f"{adapter}/../base + {adapter}"


def without(adapter: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    held = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v for k, v in held.items() if part not in k}, adapter / "adapter_model.safetensors")


def smaller(base: Path, _: Path) -> None:
    mixtral(layers=1).save_pretrained(base)


# what is done to the base's and the adapter's folder; the configuration that is changed; what the sentence holds
BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no base": (
        None,
        {"base_model_name_or_path": "../nowhere"},
        "is an adapter of ../nowhere, which cannot be loaded: there is no",
    ),
    "no base named": (None, {"base_model_name_or_path": None}, "is an adapter that names no base model; write its path"),
    "itself": (None, {"base_model_name_or_path": "."}, "is an adapter that names itself as its base model"),
    "no configuration": (lambda _, a: (a / "adapter_config.json").write_text("{"), {}, "adapter_config.json cannot be read"),
    "an unknown kind": (None, {"peft_type": "NONE_SUCH"}, "cannot be put on its base model"),
    "a part missing": (
        lambda _, a: without(a, "layers.1."),
        {},
        "lacks weights of its own, which are as PEFT begins them (base",
    ),
    "another base": (smaller, {}, "holds weights that fit nowhere in its base model, which are left out (base"),
    "targets that are not there": (
        None,
        {"target_modules": ["nothing"], "target_parameters": None},
        "cannot be put on its base",
    ),
    "cut off": (
        lambda _, a: (a / "adapter_model.safetensors").write_bytes(b""),
        {},
        "is damaged: it does not begin as a safetensors file",
    ),
    "no weights": (lambda _, a: (a / "adapter_model.safetensors").unlink(), {}, "cannot be put on its base model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_get_one_sentence(tmp_path: Path, case: str) -> None:
    change, config, said = BAD[case]
    base, adapter = folders(tmp_path, **config)
    if change is not None:
        change(base, adapter)
    done = command(tmp_path, adapter)
    assert done.exit_code in (1, 2), done.output
    assert said in done.stderr
    assert (done.stderr.startswith("moescope: "), done.stderr.count("\n")) == (True, 1)
    assert not (tmp_path / "run.duckdb").exists()


def test_an_adapter_that_is_not_whole_is_traced_when_asked(tmp_path: Path) -> None:
    _, adapter = folders(tmp_path)
    without(adapter, "layers.1.")
    assert command(tmp_path, adapter, "--allow-missing").exit_code == 0
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert "the adapter lacks weights of its own" in store.rows("select warnings from runs")[0][0]


def test_pickled_adapters_are_refused(tmp_path: Path) -> None:
    _, adapter = folders(tmp_path)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "are pickled (adapter_model.bin)" in command(tmp_path, adapter).stderr


def test_prompts_are_no_adapters_of_weights(tmp_path: Path) -> None:
    base, adapter = folders(tmp_path)
    made = peft.get_peft_model(mixtral(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    made.peft_config["default"].base_model_name_or_path = str(base)
    made.save_pretrained(adapter)
    assert "PROMPT_TUNING, which puts tokens before the text" in command(tmp_path, adapter).stderr
