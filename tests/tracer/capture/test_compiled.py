"""Models compiled before a trace attaches: traced as they ran, or refused by that name with cures that work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import ids, mixtral
from torch import Tensor, nn
from transformers.generation.configuration_utils import CompileConfig

import moescope
from moescope.contracts import find
from moescope.errors import ModelError
from moescope.models import tiny
from moescope.tracer.capture.uncompiled import NOTE

CURE = (
    " is compiled (torch.compile), and its graphs run past the hooks that would record it; to trace it, put `with "
    'torch.compiler.set_stance("force_eager"):` around the Tracer and the calls in it, or trace and call the model as it was '
    "before it was compiled (that of torch.compile(model) is model._orig_mod)"
)
Compile = Callable[[nn.Module, str], nn.Module]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def wrapped(path: str) -> Compile:
    """torch.compile(module) in the module's place."""

    def compiled(model: nn.Module, backend: str) -> nn.Module:
        made = torch.compile(model.get_submodule(path), backend=backend)
        if not path:
            return made
        setattr(model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], made)
        return model

    return compiled


def called(path: str) -> Compile:
    """module.compile()."""
    return lambda model, backend: (model.get_submodule(path).compile(backend=backend), model)[1]


def forward(path: str) -> Compile:
    """module.forward = torch.compile(module.forward)."""

    def compiled(model: nn.Module, backend: str) -> nn.Module:
        module = model.get_submodule(path)
        module.forward = torch.compile(module.forward, backend=backend)
        return model

    return compiled


BLOCK = "model.layers.0.mlp"
# how it is compiled; what the refusal names
AROUND: dict[str, tuple[Compile, str]] = {
    "the model": (wrapped(""), "this MixtralForCausalLM"),
    "the model's call": (called(""), "MixtralForCausalLM"),
    "the model's forward": (forward(""), "MixtralForCausalLM"),
    "the model without its head": (wrapped("model"), "model"),
    "a layer": (wrapped("model.layers.0"), "model.layers.0"),
    "a layer's forward": (forward("model.layers.0"), "model.layers.0"),
    "a layer's call": (called("model.layers.0"), "model.layers.0"),
    "a block": (wrapped(BLOCK), BLOCK),
    "a block's call": (called(BLOCK), BLOCK),
    "the experts' call": (called(f"{BLOCK}.experts"), f"{BLOCK}.experts"),
    "the router's call": (called(f"{BLOCK}.gate"), f"{BLOCK}.gate"),
}
BESIDE: dict[str, Compile] = {
    "the experts": wrapped(f"{BLOCK}.experts"),
    "the experts' forward": forward(f"{BLOCK}.experts"),
    "the router": wrapped(f"{BLOCK}.gate"),
    "the router's forward": forward(f"{BLOCK}.gate"),
    "attention": wrapped("model.layers.0.self_attn"),
    "attention's call": called("model.layers.0.self_attn"),
}


def wanted() -> list[tuple[int, int, int, int]]:
    """(router, token, slot, expert) of one forward of the plain model, by hooks of our own."""
    seen: list[Tensor] = []
    model = mixtral(layers=1)
    for layer in model.model.layers:
        layer.mlp.experts.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with torch.no_grad():
        model(input_ids=ids())
    return [(n, t, s, int(e)) for n, rows in enumerate(seen) for t, row in enumerate(rows) for s, e in enumerate(row)]


def rows(path: Path) -> list[tuple[Any, ...]]:
    with moescope.open(path) as store:
        return store.rows("select router, token, slot, expert from assignments order by all")


def run(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids()).logits


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", AROUND)
@pytest.mark.sampled(4)
def test_what_runs_past_the_hooks_is_refused_and_the_cure_works(tmp_path: Path, case: str, backend: str) -> None:
    make, name = AROUND[case]
    model = make(mixtral(layers=1), backend)
    before = run(model)
    with pytest.raises(ModelError) as refusal:
        moescope.Tracer(model, tmp_path / "s.duckdb").__enter__()
    assert str(refusal.value) == name + CURE
    assert not (tmp_path / "s.duckdb").exists()
    with torch.compiler.set_stance("force_eager"), moescope.Tracer(model, tmp_path / "s.duckdb"):
        traced = run(model)
    assert rows(tmp_path / "s.duckdb") == wanted()
    assert torch.equal(traced, before)
    assert torch.equal(run(model), before)
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert store.rows("select name from routers") == [("model.layers.0.mlp.gate",)]


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.sampled(3)
def test_what_does_not_hide_the_hooks_is_traced(tmp_path: Path, case: str) -> None:
    model = BESIDE[case](mixtral(layers=1), "eager")
    before = run(model)
    with moescope.Tracer(model, tmp_path / "s.duckdb"):
        traced = run(model)
    assert torch.equal(traced, before)
    assert rows(tmp_path / "s.duckdb") == wanted()


def test_the_model_inside_is_traced_and_its_compiled_form_refused_when_it_is_called(tmp_path: Path) -> None:
    model = mixtral(layers=1)
    compiled = torch.compile(model, backend="eager")
    run(compiled)
    with moescope.Tracer(compiled._orig_mod, tmp_path / "s.duckdb"):
        with pytest.raises(ModelError) as refusal:
            run(compiled)
        run(model)
    assert str(refusal.value) == "what was called is the traced model as it" + CURE
    assert rows(tmp_path / "s.duckdb") == wanted()
    run(compiled)  # as ever


def test_a_compiled_function_around_the_model_is_compiled_anew_with_the_hooks(tmp_path: Path) -> None:
    model = mixtral(layers=1)
    compiled = torch.compile(lambda: model(input_ids=ids()).logits, backend="eager")
    with torch.no_grad():
        before = compiled()
        with moescope.Tracer(model, tmp_path / "s.duckdb"):
            traced = compiled()
        after = compiled()
    assert torch.equal(before, traced)
    assert torch.equal(before, after)
    assert rows(tmp_path / "s.duckdb") == wanted()


def test_compiled_code_is_named_where_nothing_was_seen(tmp_path: Path) -> None:
    torch.compile(lambda: torch.ones(1) + 1, backend="eager")()
    with (
        pytest.raises(
            ModelError, match=r"was never run inside the Tracer.*; if what ran was compiled \(torch.compile\) before"
        ),
        moescope.Tracer(mixtral(layers=1), tmp_path / "s.duckdb"),
    ):
        pass


@pytest.mark.parametrize("how", [{"mode": "reduce-overhead"}, {"mode": "max-autotune"}, {"fullgraph": True}, {"dynamic": True}])
@pytest.mark.parametrize("regional", [False, True])
def test_each_way_of_compiling_is_refused_before_it_runs(tmp_path: Path, how: dict[str, Any], regional: bool) -> None:
    """CUDA graphs (reduce-overhead), full graphs and the rest; the whole model, or each of its layers."""
    model: Any = mixtral()
    if regional:
        for layer in model.model.layers:
            layer.compile(**how)
    else:
        model = torch.compile(model, **how)
    with pytest.raises(ModelError, match=r"is compiled \(torch.compile\), and its graphs run past the hooks"):
        moescope.Tracer(model, tmp_path / "s.duckdb").__enter__()
    assert list(tmp_path.iterdir()) == []


INSIDE: dict[str, Compile] = {"the model": wrapped(""), "a layer": called("model.layers.0")}


@pytest.mark.parametrize("case", [pytest.param("the model", marks=pytest.mark.slow), "a layer"])
def test_what_is_compiled_inside_the_block_is_traced(tmp_path: Path, case: str) -> None:
    model = mixtral(layers=1)
    before = run(model)
    with moescope.Tracer(model, tmp_path / "s.duckdb"):
        made = INSIDE[case](model, "eager")
        traced = [run(made), run(made)]
    assert [torch.equal(out, before) for out in traced] == [True, True]
    once = wanted()
    assert [row[0] for row in rows(tmp_path / "s.duckdb")] == [0] * 2 * len(once)
    assert [(r, t % 14, s, e) for r, t, s, e in rows(tmp_path / "s.duckdb")] == once * 2


@pytest.mark.parametrize("path", ["", "model.layers.0"])
def test_a_full_graph_inside_the_block_is_refused(tmp_path: Path, path: str) -> None:
    model = mixtral(layers=1)
    said = "moescope reads routers in Python, which cannot be part of a full graph"

    def compiled() -> None:
        model.get_submodule(path).compile(fullgraph=True, backend="eager")
        run(model)

    with pytest.raises(torch._dynamo.exc.Unsupported, match=said), moescope.Tracer(model, tmp_path / "s.duckdb"):
        compiled()
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert store.rows("select count(*) from runs") == [(0,)]


@pytest.mark.parametrize("family", ["switch_transformers", "llama4_text", "nllb-moe", "deepseek_v3"])
def test_no_family_has_a_router_twice(family: str) -> None:
    """A wrapper lends its module's attributes out, which must not count as a second block."""
    model = tiny.build(family).model
    plain = [site.path for site in find(model)]
    block = find(model)[0]
    setattr(block.parent, block.name.rpartition(".")[2], torch.compile(block.block, backend="eager"))
    with torch.compiler.set_stance("force_eager"):
        assert [site.path for site in find(model)] == plain


def settings() -> dict[str, Any]:
    config = CompileConfig(backend="eager", fullgraph=False)
    config._compile_all_devices = True
    return {"max_new_tokens": 4, "do_sample": False, "cache_implementation": "static", "compile_config": config}


@pytest.mark.parametrize("warm", [False, True])
def test_generate_that_compiles_is_traced_token_by_token(tmp_path: Path, warm: bool) -> None:
    plain, model = mixtral(layers=1), mixtral(layers=1)
    wanted = plain.generate(ids(), max_new_tokens=4, do_sample=False)
    if warm:
        assert torch.equal(model.generate(ids(), **settings()), wanted)
        assert "_compiled_call" in vars(model)
    method = type(model).get_compiled_call
    with moescope.Tracer(model, tmp_path / "s.duckdb"):
        assert torch.equal(model.generate(ids(), **settings()), wanted)
    assert type(model).get_compiled_call is method
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert store.rows("select count(distinct forward), count(distinct router) from decisions") == [(4, 1)]
        assert NOTE in store.rows("select warnings from runs")[0][0]
    assert torch.equal(model.generate(ids(), **settings()), wanted)


def test_generate_of_another_model_is_compiled_as_ever(tmp_path: Path) -> None:
    traced, other = mixtral(layers=1), mixtral(layers=1)
    with moescope.Tracer(traced, tmp_path / "s.duckdb"):
        other.generate(ids(), **settings())
        assert "_compiled_call" in vars(other)
        run(traced)
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert NOTE not in store.rows("select warnings from runs")[0][0]
