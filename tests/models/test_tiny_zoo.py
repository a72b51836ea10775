"""Every routed family of the installed Transformers builds tiny, runs, and runs the same again."""

import inspect
import re
from collections.abc import Iterator
from functools import cache

import pytest
import torch
import transformers

from moescope.errors import InputError
from moescope.models import tiny

ROUTERS = r"Top\w*(Router|Gating)$|(Hash|TokenChoice|Text|Dbrx|Zaya|Llama4)Router$|MoEV1Gate$"
families = pytest.mark.parametrize("name", tiny.names())
build = cache(tiny.build)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices lose more to the thread pool than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def forward(zoo: tiny.TinyModel) -> torch.Tensor:
    """The model's main output: logits, or hidden states of a backbone, or the first feature map."""
    with torch.no_grad():
        out = zoo.model(**zoo.inputs)
    main = next(out[key] for key in ("logits", "last_hidden_state", "feature_maps") if out.get(key) is not None)
    return main[0] if isinstance(main, tuple) else main


@pytest.mark.skipif(not transformers.__version__.startswith("5.23."), reason="counted for Transformers 5.23")
def test_transformers_5_23_has_75_families() -> None:
    assert len(tiny.names()) == 75


def test_nothing_looks_routed_and_is_not_known() -> None:
    assert tiny.unknown() == []


@families
def test_runs_finite_and_bit_identical_from_one_seed(name: str) -> None:
    out = forward(build(name))
    assert build(name).model_type == name
    assert not build(name).model.training
    assert out.isfinite().all()
    assert torch.equal(out, forward(build(name))), "two forwards of one model differ"
    assert torch.equal(out, forward(tiny.build(name))), "two models of one seed differ"
    assert not torch.equal(out, forward(tiny.build(name, seed=1))), "the seed changes nothing"


@families
def test_runs_finite_in_bf16(name: str) -> None:
    zoo = tiny.build(name, dtype=torch.bfloat16)
    assert torch.bfloat16 in {p.dtype for p in zoo.model.parameters()}
    assert forward(zoo).isfinite().all()


@families
def test_pads_on_the_left_where_the_family_takes_a_mask(name: str) -> None:
    zoo = build(name)
    if "attention_mask" in inspect.signature(zoo.model.forward).parameters:
        assert zoo.inputs["attention_mask"].tolist() == [[0] * 4 + [1] * 8, [1] * 12]
    else:
        assert set(zoo.inputs) in ({"pixel_values", "grid_thw"}, {"pixel_values", "dataset_index"})


@families
def test_every_router_fires_once_and_tells_tokens_apart(name: str) -> None:
    zoo = build(name)
    routers = {k: m for k, m in zoo.model.named_modules() if re.search(ROUTERS, type(m).__name__)}
    fired: dict[str, list[torch.Tensor]] = {k: [] for k in routers}
    hooks = [m.register_forward_hook(lambda m, a, out, k=k: fired[k].append(scores(out))) for k, m in routers.items()]
    forward(zoo)
    for hook in hooks:
        hook.remove()
    assert len(fired) >= 2 or name in ("doge", "vitpose_backbone")  # no router module in these two
    assert {k: len(calls) for k, calls in fired.items()} == dict.fromkeys(fired, 1)
    assert all(len(calls[0].unique(dim=0)) > 4 for calls in fired.values())


@families
def test_correction_biases_are_not_zero(name: str) -> None:
    state = build(name).model.state_dict()
    biases = [v for k, v in state.items() if re.search(r"(correction|expert|balancing)_bias", k)]
    assert all((bias != 0).all() for bias in biases)


def test_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny.build("mixtral")
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(InputError, match=r"^No family is called 'gpt2'; Transformers .* choose one of: afmoe, aria_text, "):
        tiny.build("gpt2")


def scores(out: torch.Tensor | tuple) -> torch.Tensor:
    """What a router says of each token [T, E]: the widest floating matrix among its outputs."""
    tensors = [t for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor)]
    widest = max((t for t in tensors if t.is_floating_point() and t.dim() > 1), key=lambda t: t.shape[-1])
    return widest.reshape(-1, widest.shape[-1])
