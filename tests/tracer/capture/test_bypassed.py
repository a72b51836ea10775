"""Kernels that run past routers and experts: refused at attach, or said where they begin later; never an empty record."""

from collections.abc import Callable
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import quantized
import torch
from small import ids, mixtral
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.integrations import mxfp4

import moescope
from moescope.errors import ModelError, ProofFailed


def fused(block: Any, hidden: Tensor) -> Tensor:
    """What a kernel for a whole block does: choose and run without a call of either module."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    shares = nn.functional.linear(flat, block.gate.weight).softmax(-1)
    weights, experts = shares.topk(2)
    return block.experts.forward(flat, experts, weights / weights.sum(-1, keepdim=True)).reshape(hidden.shape)


def past_experts(block: Any, hidden: Tensor) -> Tensor:
    """One that asks the router and runs the experts by itself."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    _, weights, experts = block.gate(flat)
    return block.experts.forward(flat, experts, weights).reshape(hidden.shape)


def by_forward(model: Any, layers: list[int], kernel: Callable[..., Tensor]) -> None:
    for layer in layers:
        block = model.model.layers[layer].mlp
        block.forward = MethodType(kernel, block)


def by_class(model: Any, layers: list[int], kernel: Callable[..., Tensor]) -> None:
    """As Transformers' `kernelize` does it: another class over the same modules."""
    for layer in layers:
        block = model.model.layers[layer].mlp
        block.__class__ = type("MegaBlocksMoeMLP", (type(block),), {"forward": kernel})


@pytest.mark.parametrize("layers", [[0, 1], [1]])
@pytest.mark.parametrize("kernel", [fused, past_experts])
@pytest.mark.parametrize("put", [by_forward, by_class])
def test_a_kernel_for_a_whole_block_is_refused(tmp_path: Path, put: Any, kernel: Any, layers: list[int]) -> None:
    model = mixtral()
    wanted = model(input_ids=ids()).logits
    put(model, layers, kernel)
    assert torch.allclose(model(input_ids=ids()).logits, wanted, atol=1e-5)
    with pytest.raises(ProofFailed, match=rf"router model.layers.{layers[0]}.mlp.gate .* never handed a decision to experts"):
        moescope.Tracer(model, tmp_path / "s.duckdb").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_the_kernels_of_mxfp4_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' own block for them, with what its kernels compute computed by experts that were read back."""
    folder, _ = quantized.mxfp4(quantized.gpt_oss64(tmp_path / "plain"), tmp_path / "mxfp4")
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = model(input_ids=ids()).logits
    hub = SimpleNamespace(routing=SimpleNamespace(routing=lambda logits, k: (logits.topk(k), None, None)))
    monkeypatch.setattr(mxfp4, "triton_kernels_hub", hub, raising=False)
    for layer in model.model.layers:
        plain, packed = layer.mlp.experts, mxfp4.Mxfp4GptOssExperts(model.config)
        packed.forward_routed = lambda x, chosen, *_, plain=plain: plain.forward(x, chosen.indices, chosen.values.softmax(-1))
        layer.mlp = mxfp4.Mxfp4GptOssMLP(layer.mlp.router, packed)
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids()).logits, wanted, atol=1e-5)
    with pytest.raises(ProofFailed, match=r"model.layers.0.mlp.router .* Mxfp4Config\(dequantize=True\)"):
        moescope.Tracer(model, tmp_path / "s.duckdb").__enter__()
    assert not (tmp_path / "s.duckdb").exists()


def for_one_token(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A kernel for decode steps."""

    def forward(block: Any, hidden: Tensor) -> Tensor:
        return kernel(block, hidden) if hidden.shape[1] == 1 else type(block).forward(block, hidden)

    return forward


NONE = "{} forwards asked no router at all (a kernel that runs past them, say), and nothing is stored of them"
MISSED = (
    "model.layers.1.mlp.gate did not fire in {} forwards in which others of its stack did (its layer was skipped, or a kernel "
    "ran past it): nothing of it is stored there"
)


@pytest.mark.parametrize(("layers", "said", "forwards"), [([0, 1], NONE, 1), ([1], MISSED, 4), ([], None, 4)])
def test_a_kernel_that_begins_later_is_said(tmp_path: Path, layers: list[int], said: str | None, forwards: int) -> None:
    model = mixtral()
    by_forward(model, layers, for_one_token(fused))
    with moescope.Tracer(model, tmp_path / "s.duckdb"):
        model.generate(ids(), max_new_tokens=4, do_sample=False)
    with moescope.open(tmp_path / "s.duckdb") as store:
        (warnings,) = store.rows("select json_extract_string(warnings, '$[*]') from runs")[0]
        counts = store.rows("select router, count(distinct forward) from decisions group by all order by all")
    assert [w for w in warnings if "forwards" in w] == ([said.format(3)] if said else [])
    assert counts == [(0, forwards), (1, 1 if layers else 4)]


def test_a_capture_into_a_cuda_graph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mixtral(layers=1)

    def captured() -> None:
        with monkeypatch.context() as capturing:
            capturing.setattr(torch.cuda, "is_initialized", lambda: True)
            capturing.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            model(input_ids=ids())

    said = "is captured into a CUDA graph inside the Tracer, and replays of it run past"
    with pytest.raises(ModelError, match=said), moescope.Tracer(model, tmp_path / "s.duckdb"):
        captured()
