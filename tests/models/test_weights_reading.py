"""Weights in every form that is no plain tensor: hashed, compared and counted right, or left out with a word; never a crash."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import ids, mixtral
from torch import Tensor, nn
from torch.utils import _pytree

import moescope
from moescope import weights
from moescope.contracts import find
from moescope.errors import ProofFailed
from moescope.models import tiny
from moescope.models.describe import describe_model, weights_sha256
from moescope.store.integrity.verify import verify

SEEDED = "638bfd6272ba399b01fba7c7369369327f733b4db1aa1a5d9cea82aa5096cd54"  # of mixtral() as it is made


class Coded(Tensor):
    """Codes of eight bits and a scale, which no operation knows: each is done on what they stand for."""

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Any) -> "Coded":
        return Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes: Tensor, scale: Any) -> None:
        self.codes, self.scale = codes, scale

    def plain(self) -> Tensor:
        return self.codes.float() * self.scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].codes, args[0].scale)
        if func in (torch.ops.aten.view.default, torch.ops.aten._to_copy.default, torch.ops.aten.dequantize.self):
            raise NotImplementedError(f"no {func}")
        plain = _pytree.tree_map_only(Coded, Coded.plain, (args, kwargs or {}))
        return func(*plain[0], **plain[1])


class Flat(Coded):
    """One that says what it wraps."""

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["codes"], {"scale": self.scale}


class Dequantizing(Coded):
    """One that says what it stands for."""

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["codes", "scale"], None

    def dequantize(self) -> Tensor:
        return self.plain()


class Named(Tensor):
    """A subclass over plain storage."""


def code(weight: Tensor, cls: type[Coded] = Coded, scale: Any = 0.01) -> nn.Parameter:
    return nn.Parameter(cls((weight.detach() / scale).round().to(torch.int8), scale), requires_grad=False)


def attention(change: Callable[[nn.Parameter], Any]) -> Callable[[nn.Module], nn.Module]:
    """Another form of the queries' matrix in each layer."""

    def changed(model: nn.Module) -> nn.Module:
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight = change(layer.self_attn.q_proj.weight)
        return model

    return changed


def experts(change: Callable[[nn.Parameter], Any]) -> Callable[[nn.Module], nn.Module]:
    """Another form of one matrix of all experts in each layer."""

    def changed(model: nn.Module) -> nn.Module:
        for layer in model.model.layers:
            layer.mlp.experts.down_proj = change(layer.mlp.experts.down_proj)
        return model

    return changed


def buffer(value: Any) -> Callable[[nn.Module], nn.Module]:
    def changed(model: nn.Module) -> nn.Module:
        model.register_buffer("beside", value)
        return model

    return changed


def frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def int8(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def extra_state(model: nn.Module) -> nn.Module:
    class Extra(nn.LayerNorm):
        def get_extra_state(self) -> Any:
            return {"amax": torch.ones(2), "format": "e4m3", "what": object()}

        def set_extra_state(self, _: Any) -> None: ...

    model.beside = Extra(4)
    return model


def torchao(kind: str) -> Callable[[nn.Module], nn.Module]:
    def changed(model: nn.Module) -> nn.Module:
        quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
        quantization.quantize_(model, getattr(quantization, kind)())
        return model

    return changed


def bitsandbytes(model: nn.Module) -> nn.Module:
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    for layer in model.model.layers:
        old = layer.self_attn.o_proj
        new = bnb.nn.Linear8bitLt(32, 32, bias=False, has_fp16_weights=False)
        new.weight = bnb.nn.Int8Params(old.weight.detach().clone(), requires_grad=False, has_fp16_weights=False)
        layer.self_attn.o_proj = new.to("cpu")
    return model


def offloaded(model: nn.Module) -> nn.Module:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    return accelerate.cpu_offload(model, execution_device=torch.device("cpu")) or model


ROW = torch.tensor([[1.0, 0, 2], [0, 3, 0]])
UNREAD = "{}: could not be read: the weights' hash covers its name, shape and type alone"
COSINES = (
    "model.layers.0.mlp.gate and 1 more: expert weights could not be read as the numbers that take part, so their cosines are "
    "left out"
)
# how a model is changed; what the run says of its weights; what it is said to be quantized by
FORMS: dict[str, tuple[Callable[[nn.Module], nn.Module], list[str], str | None]] = {
    "dynamic int8": (int8, [], "qint8"),
    "sparse rows": (attention(lambda w: frozen(w.detach().to_sparse_csr())), [], "sparse_csr"),
    "sparse buffer": (buffer(ROW.to_sparse()), [], None),
    "sparse columns": (buffer(ROW.to_sparse_csc()), [], None),
    "quantized per channel": (
        buffer(torch.quantize_per_channel(ROW, torch.tensor([0.1, 0.2]), torch.zeros(2), 0, torch.qint8)), [], None),
    "ragged": (buffer(torch.nested.nested_tensor([ROW, ROW[:1]], layout=torch.jagged)), [], None),
    "conjugate": (buffer(ROW.to(torch.complex64).conj()), [], None),
    "float8": (buffer(ROW.to(torch.float8_e4m3fn)), [], None),
    "no value": (buffer(None), [], None),
    "nothing in it": (buffer(torch.zeros(0)), [], None),
    "without numbers": (buffer(torch.empty(3, device="meta")), [UNREAD.format("beside")], None),
    "state of its own": (extra_state, [UNREAD.format("beside._extra_state")], None),
    "plain subclass": (attention(lambda w: frozen(w.detach().as_subclass(Named))), [], "Named"),
    "wrapper": (attention(code), [], "Coded"),
    "wrapper that flattens": (attention(lambda w: code(w, Flat)), [], "Flat"),
    "wrapped experts": (experts(code), [COSINES], "Coded"),
    "wrapped experts that dequantize": (experts(lambda w: code(w, Dequantizing, torch.tensor(0.01))), [], "Dequantizing"),
    "offloaded": (offloaded, [], None),
    "torchao int8": (torchao("Int8WeightOnlyConfig"), [], "torchao int8, 10.7 % of parameters"),
    "torchao float8": (torchao("Float8WeightOnlyConfig"), [], "torchao float8, 10.7 % of parameters"),
    "bitsandbytes int8": (bitsandbytes, [], "bitsandbytes 8-bit, 2.36 % of parameters"),
}  # fmt: skip


def decisions(model: nn.Module) -> list[Tensor]:
    """What enters the experts, by hooks of our own."""
    seen: list[Tensor] = []
    hooks = [m.mlp.experts.register_forward_pre_hook(lambda _, args: seen.append(args[1])) for m in model.model.layers]
    with torch.no_grad():
        model(input_ids=ids())
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.sampled(8)
def test_traced_whatever_the_form(tmp_path: Path, form: str) -> None:
    change, said, quantized = FORMS[form]
    model = change(mixtral())
    with moescope.Tracer(model, tmp_path / "s.duckdb") as tracer, torch.no_grad():
        model(input_ids=ids())
    assert all(p.identical for p in tracer.proof)
    with moescope.open(tmp_path / "s.duckdb") as store:
        (warnings,) = store.rows("select json_extract_string(warnings, '$[*]') from runs")[0]
        described = store.rows("select parameters, dtype, quantization from models")
        stored = store.rows("select router, token, slot, expert from assignments order by all")
        assert [check for check in verify(store) if check.broken] == []
    assert list(warnings) == said
    extra = 8 if form == "state of its own" else 0
    assert described == [(86752 + extra, "float32", quantized)]
    wanted = [
        (n, t, s, int(e)) for n, rows in enumerate(decisions(model)) for t, row in enumerate(rows) for s, e in enumerate(row)
    ]
    assert stored == wanted


@pytest.mark.parametrize("form", FORMS)
def test_the_hash_is_the_same_again(form: str) -> None:
    change, _, _ = FORMS[form]
    assert weights_sha256(change(mixtral())) == weights_sha256(change(mixtral()))
    assert weights_sha256(mixtral()) == SEEDED


# a number changed behind each form: codes, scales, indices
READ: dict[str, tuple[Any, Any]] = {
    "codes": (Coded(torch.tensor([1, 2], dtype=torch.int8), 0.5), Coded(torch.tensor([1, 3], dtype=torch.int8), 0.5)),
    "scale beside": (Coded(torch.tensor([1], dtype=torch.int8), 0.5), Coded(torch.tensor([1], dtype=torch.int8), 0.25)),
    "scale in the context": (Flat(torch.tensor([1], dtype=torch.int8), 0.5), Flat(torch.tensor([1], dtype=torch.int8), 0.25)),
    "scale of a tensor": (
        torch.quantize_per_tensor(ROW, 0.5, 0, torch.qint8), torch.quantize_per_tensor(ROW / 2, 0.25, 0, torch.qint8)),
    "place of a value": (ROW.to_sparse(), ROW.flip(0).to_sparse()),
    "shape of what is sparse": (
        torch.sparse_coo_tensor([[0]], [1.0], (2,)), torch.sparse_coo_tensor([[0]], [1.0], (3,))),
    "one of a tuple": ((ROW, None), (ROW + 1, None)),
    "beside what cannot be read": ({"a": object(), "b": 1}, {"a": object(), "b": 2}),
    "shape of what cannot be read": (torch.empty(2, device="meta"), torch.empty(3, device="meta")),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_the_hash_follows_what_can_be_read(what: str) -> None:
    class Holder(nn.Module):
        def __init__(self, value: Any) -> None:
            super().__init__()
            self.value = value

        def get_extra_state(self) -> Any:
            return self.value

    first, second = (weights_sha256(Holder(value)) for value in READ[what])
    assert first != second
    assert first == weights_sha256(Holder(READ[what][0]))


def test_what_a_weight_stands_for() -> None:
    codes = torch.tensor([[2, 4]], dtype=torch.int8)
    known = {
        "plain": torch.tensor([[1.0, 2]]),
        "sparse": torch.tensor([[1.0, 2]]).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.tensor([[1.0, 2]]), 0.5, 0, torch.qint8),
        "wrapped": Dequantizing(codes, torch.tensor(0.5)),
        "subclass": torch.tensor([[1.0, 2]]).as_subclass(Named),
    }
    for name, tensor in known.items():
        numbers = weights.dense(tensor)
        assert numbers is not None, name
        assert type(numbers) is Tensor, name
        assert numbers.tolist() == [[1.0, 2.0]], name
    codes_only = [codes, torch.ones(2).to(torch.float8_e4m3fn), Coded(codes, 0.5), torch.empty(2, device="meta")]
    assert [weights.dense(tensor) for tensor in codes_only] == [None] * 4


def test_packed_weights_are_counted() -> None:
    model = int8(nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5)))
    assert {name: tuple(w.shape) for name, w in weights.weights(model)} == {
        "1.weight": (5,), "1.bias": (5,), "0.weight": (5, 3), "0.bias": (5,),
    }  # fmt: skip
    row, _ = describe_model(model)
    assert (row["parameters"], row["dtype"], row["quantization"]) == (30, "float32", "qint8")


@pytest.mark.parametrize("family", ["switch_transformers", "gpt_oss", "dbrx", "deepseek_v3", "llama4_text"])
def test_families_in_dynamic_int8(tmp_path: Path, family: str) -> None:
    built = tiny.build(family)
    model = int8(built.model)
    with moescope.Tracer(model, tmp_path / "s.duckdb", inputs=built.inputs) as tracer, torch.no_grad():
        model(**built.inputs)
    assert [p.router for p in tracer.proof] == [site.path for site in tracer.sites]
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert [check for check in verify(store) if check.broken] == []


def test_experts_that_round_by_their_company_are_refused_by_that_name(tmp_path: Path) -> None:
    """NLLB-MoE's experts are modules of linear layers: in dynamic int8 one token's output hangs on the others'."""
    built = tiny.build("nllb-moe")
    with pytest.raises(
        ProofFailed, match=r"its experts' weights are qint8, which may round .* before it is quantized or sharded"
    ):
        moescope.Tracer(int8(built.model), tmp_path / "s.duckdb", inputs=built.inputs).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def alone() -> Iterator[Any]:
    """A group of this process alone."""
    distributed = pytest.importorskip("torch.distributed.tensor")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    yield distributed
    torch.distributed.destroy_process_group()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_distributed_attention_has_the_hash_of_the_whole(tmp_path: Path, alone: Any) -> None:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model = mixtral()
    plan = {"q_proj": ColwiseParallel(), "k_proj": ColwiseParallel(), "v_proj": ColwiseParallel(), "o_proj": RowwiseParallel()}
    for layer in model.model.layers:
        parallelize_module(layer.self_attn, alone.init_device_mesh("cpu", (1,)), plan)
    with moescope.Tracer(model, tmp_path / "s.duckdb"), torch.no_grad():
        model(input_ids=ids())
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert store.rows("select weights_sha256, quantization from models") == [(SEEDED, "DTensor")]
        assert store.rows("select warnings from runs") == [("[]",)]


def test_sharded_experts_are_refused_by_that_name(tmp_path: Path, alone: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    model = mixtral()
    for module in (*model.model.layers, model):
        fully_shard(module, mesh=alone.init_device_mesh("cpu", (1,)))
    with pytest.raises(ProofFailed, match=r"its experts' weights are DTensor, .* before it is quantized or sharded"):
        moescope.Tracer(model, tmp_path / "s.duckdb").__enter__()


def test_a_part_of_a_sharded_tensor_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is on one of several processes."""
    model = mixtral()
    monkeypatch.setattr(weights, "sharded", lambda tensor: tensor is model.lm_head.weight or tensor.shape == (97, 32))
    _, notes = describe_model(model)
    assert notes == [
        "lm_head.weight and 1 more: is sharded over processes: the weights' hash covers the part that this one holds"
    ]
    assert weights.dense(model.lm_head.weight) is None


def test_offloaded_bias_is_noted() -> None:
    built = tiny.build("deepseek_v3")
    wanted = [site.rule["bias"] for site in find(built.model)]
    assert [site.rule["bias"] for site in find(offloaded(built.model))] == wanted
