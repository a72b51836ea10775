"""Quantized weights: made on the way in, or brought by a checkpoint; recorded as they ran, called what they are, or refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized as made
import torch
from bars import without_bars
from click.testing import CliRunner
from experts_called import Row, experts_called
from safetensors.torch import save_file
from small import ids, mixtral
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

import moescope
from moescope.cli import main
from moescope.models.loading import load
from moescope.models.quantized import ways
from moescope.store.integrity.verify import verify

REASON = "{} is not installed"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of plain checkpoints, mixtral and gpt_oss, and of token ids as data."""
    folder = tmp_path_factory.mktemp("plain")
    made.mixtral64(folder / "mixtral")
    made.gpt_oss64(folder / "gpt_oss")
    np.savez(folder / "data.npz", input_ids=ids().numpy())
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What a small model gets when it is traced by name: a row's last bits hang on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def command(plain: Path, model: Path | str, store: Path, *more: str) -> Any:
    args = ["trace", str(model), "--data", str(plain / "data.npz"), "--store", str(store), "--quiet", *more]
    return CliRunner().invoke(main, args)


def stored(path: Path) -> tuple[list[Row], tuple[Any, ...]]:
    with moescope.open(path) as store:
        assert [check for check in verify(store) if check.broken] == []
        rows = store.rows("select router, token, slot, expert, weight from assignments order by all")
        said = store.rows(
            "select m.quantization, m.dtype, json_extract_string(r.warnings, '$[*]'), r.proof "
            "from runs r join models m using (model)"
        )
    return rows, said[0]


def bits8() -> Any:
    pytest.importorskip("bitsandbytes", reason=REASON.format("bitsandbytes"))
    return BitsAndBytesConfig(load_in_8bit=True)


def bits4(**more: Any) -> Any:
    pytest.importorskip("bitsandbytes", reason=REASON.format("bitsandbytes"))
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **more)


def torchao(kind: str) -> Any:
    """Attention and experts by their own names."""
    ao = pytest.importorskip("torchao.quantization", reason=REASON.format("torchao"))
    way = getattr(ao, kind)(version=2)
    parts = [f"self_attn.{x}_proj.weight" for x in "qkvo"] + ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    return TorchAoConfig(ao.FqnToConfig({f"model.layers.{n}.{part}": way for n in (0, 1) for part in parts}))


ATTENTION, WITH_EXPERTS = "10.5 %", "94.1 %"  # 24,576 of 234,944 parameters; 221,184
# how it is asked for, by us and of Transformers; what the store calls it
ON_THE_WAY: dict[str, tuple[Callable[[], Any], str]] = {
    "8bit": (bits8, f"bitsandbytes 8-bit, {ATTENTION} of parameters"),
    "4bit": (bits4, f"bitsandbytes 4-bit nf4, {ATTENTION} of parameters"),
    "int8-torchao": (lambda: torchao("Int8WeightOnlyConfig"), f"torchao int8, {WITH_EXPERTS} of parameters"),
    "fp8-torchao": (lambda: torchao("Float8WeightOnlyConfig"), f"torchao float8, {WITH_EXPERTS} of parameters"),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", ON_THE_WAY)
def test_what_is_quantized_on_the_way_in_is_recorded_as_it_ran(plain: Path, tmp_path: Path, way: str, dtype: str) -> None:
    settings, said = ON_THE_WAY[way]
    eager = {"experts_implementation": "eager"} if "torchao" in way else {}
    other = AutoModelForCausalLM.from_pretrained(
        plain / "mixtral", dtype=getattr(torch, dtype), quantization_config=settings(), **eager
    )
    done = command(plain, plain / "mixtral", tmp_path / "s.duckdb", "--quantize", way, "--dtype", dtype)
    assert (done.exit_code, done.output) == (0, "")
    rows, (quantization, precision, _, proof) = stored(tmp_path / "s.duckdb")
    assert (quantization, precision) == (said, dtype)
    assert rows == experts_called(other.eval())
    for row in json.loads(proof):
        assert (row["identical"], row["tolerance"]) == (True, {"float32": 2e-5, "bfloat16": 3e-2}[dtype])
        assert row["error"] < row["tolerance"] / 3


def linear(way: str) -> Callable[[Path], Any]:
    """A model that Transformers has quantized, as it comes from the folder."""
    settings = {
        "8 bits": bits8,
        "4 bits": bits4,
        "4 bits, their scales too": lambda: bits4(bnb_4bit_use_double_quant=True),
        "torchao": lambda: torchao("Int8WeightOnlyConfig"),
    }[way]()
    return lambda folder: AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, experts_implementation="eager"
    ).eval()


@pytest.mark.parametrize(
    ("way", "ran_before"),
    [("8 bits", False), ("4 bits", False), ("4 bits", True), ("4 bits, their scales too", True), ("torchao", False)],
)
def test_tracing_changes_nothing_of_what_a_first_forward_changes(
    plain: Path, tmp_path: Path, way: str, ran_before: bool
) -> None:
    """Layers of bitsandbytes lay their weights and scales anew when they run first; a proof must leave them as they came."""
    fresh = linear(way)
    with torch.no_grad():
        wanted = fresh(plain / "mixtral")(input_ids=ids()).logits
        model = fresh(plain / "mixtral")
        if ran_before:
            model(input_ids=ids())
        with moescope.Tracer(model, tmp_path / "s.duckdb") as tracer:
            inside = model(input_ids=ids()).logits
        after = model(input_ids=ids()).logits
    assert [p.identical for p in tracer.proof] == [True, True]
    assert torch.equal(inside, wanted)
    assert torch.equal(after, wanted)
    assert stored(tmp_path / "s.duckdb")[0] == experts_called(fresh(plain / "mixtral"))


# a checkpoint with quantized weights: how it is written from a plain one; what the store calls it, and what it says of it
READ = "the checkpoint's {} weights were read back as {} on loading, and are computed with as such"
BROUGHT: dict[str, tuple[Callable[[Path, Path], Any], str, str]] = {
    "fp8": (lambda p, f: made.fp8(p / "mixtral", f), "FP8 of the checkpoint, read back as {}", READ.format("FP8", "{}")),
    "mxfp4": (
        lambda p, f: made.mxfp4(p / "gpt_oss", f),
        "MXFP4 of the checkpoint, read back as {}",
        READ.format("MXFP4", "{}"),
    ),
    "compressed-tensors": (
        lambda p, f: (
            pytest.importorskip("compressed_tensors", reason=REASON.format("compressed-tensors"))
            and made.compressed(p / "mixtral", f, 4)
        ),
        "compressed-tensors of the checkpoint, read back as {}",
        READ.format("compressed-tensors", "{}"),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", BROUGHT)
def test_what_a_checkpoint_brings_is_read_back_and_said(plain: Path, tmp_path: Path, method: str, dtype: str) -> None:
    write, called, said = BROUGHT[method]
    folder, meant = write(plain, tmp_path / "quantized")
    other = tmp_path / "plain"
    other.mkdir()
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (other / "config.json").write_text(json.dumps(config))
    save_file({name: t.contiguous() for name, t in meant.items()}, other / "model.safetensors", {"format": "pt"})
    done = command(plain, folder, tmp_path / "s.duckdb", "--dtype", dtype)
    assert (done.exit_code, without_bars(done.output)) == (0, "")
    rows, (quantization, precision, warnings, _) = stored(tmp_path / "s.duckdb")
    assert (quantization, precision, warnings[0]) == (called.format(dtype), dtype, said.format(dtype))
    assert rows == experts_called(AutoModelForCausalLM.from_pretrained(other, dtype=getattr(torch, dtype)).eval())


SAVED: dict[str, tuple[Callable[[], Any], str]] = {
    "bitsandbytes, 8 bits": (bits8, f"bitsandbytes 8-bit, {ATTENTION} of parameters"),
    "bitsandbytes, 4 bits": (bits4, f"bitsandbytes 4-bit nf4, {ATTENTION} of parameters"),
    "torchao": (lambda: torchao("Int8WeightOnlyConfig"), f"torchao int8, {WITH_EXPERTS} of parameters"),
}


@pytest.mark.parametrize("method", SAVED)
def test_what_was_saved_quantized_is_loaded_so(plain: Path, tmp_path: Path, method: str) -> None:
    settings, said = SAVED[method]
    folder = made.saved(plain / "mixtral", tmp_path / "saved", settings(), dtype=torch.bfloat16)
    done = command(plain, folder, tmp_path / "s.duckdb", *(["--dtype", "bfloat16"] if method != "torchao" else []))
    assert (done.exit_code, done.output) == (0, "")
    rows, (quantization, precision, _, _) = stored(tmp_path / "s.duckdb")
    assert (quantization, precision) == (said, "bfloat16")
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, experts_implementation="eager")
    if method != "torchao":
        other.set_experts_implementation("grouped_mm")
    assert rows == experts_called(other.eval())


def test_a_small_router_in_4_bits_is_left_as_it_is(tmp_path: Path) -> None:
    """bitsandbytes packs 32 outputs together for a CPU, and a router of Switch is a linear layer with 8."""
    bits4()
    model = load("switch", quantize="4bit").model
    kinds = {name: type(m).__name__ for name, m in model.named_modules() if name.endswith((".wi", ".classifier"))}
    assert {kind for name, kind in kinds.items() if name.endswith(".wi")} == {"Linear4bit"}
    assert {kind for name, kind in kinds.items() if name.endswith(".classifier")} == {"Linear"}
    with moescope.Tracer(model, tmp_path / "s.duckdb") as tracer, torch.no_grad():
        model(input_ids=ids(), decoder_input_ids=ids(seed=1))
    assert all(p.identical for p in tracer.proof)


def test_an_adapter_on_a_quantized_base(plain: Path, tmp_path: Path) -> None:
    """A base in four bits and LoRA on its attention, as QLoRA has it."""
    peft = pytest.importorskip("peft")
    settings = bits4()
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    base = AutoModelForCausalLM.from_pretrained(plain / "mixtral")
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    quant = AutoModelForCausalLM.from_pretrained(plain / "mixtral", quantization_config=settings)
    wanted = experts_called(peft.PeftModel.from_pretrained(quant, tmp_path / "adapter").eval())
    more = ["--quantize", "4bit", "--adapter", str(tmp_path / "adapter")]
    done = command(plain, plain / "mixtral", tmp_path / "s.duckdb", *more)
    assert (done.exit_code, done.output) == (0, "")
    rows, (quantization, *_) = stored(tmp_path / "s.duckdb")
    assert rows == wanted
    assert quantization.startswith("bitsandbytes 4-bit nf4, 10.4 % of parameters")


def told(folder: Path, target: Path, settings: Any) -> Path:
    """A checkpoint whose configuration says that its weights are quantized like that."""
    target.mkdir()
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": settings}
    (target / "config.json").write_text(json.dumps(config))
    (target / "model.safetensors").symlink_to(folder / "model.safetensors")
    return target


# what a configuration says; which of the packages are not there; what the sentence holds
UNREADABLE: dict[str, tuple[Any, set[str], str]] = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4},
        {"gptqmodel", "optimum"},
        "by gptq, which are loaded with gptqmodel and optimum: pip install gptqmodel optimum",
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4},
        {"gptqmodel"},
        "quantized by awq, which are loaded with gptqmodel: pip install gptqmodel",
    ),
    "compressed": (
        {"quant_method": "compressed-tensors"},
        {"compressed_tensors"},
        "loaded with compressed-tensors: pip install compressed-tensors",
    ),
    "bitsandbytes": (
        {"load_in_4bit": True},
        {"bitsandbytes"},
        "quantized by bitsandbytes, which are loaded with bitsandbytes: pip",
    ),
    "torchao": (
        {"quant_method": "torchao"},
        {"torchao"},
        "quantized by torchao, which are loaded with torchao: pip install torchao",
    ),
    "fp8": (
        {"quant_method": "fp8"},
        {"accelerate"},
        "quantized by fp8, which are loaded with accelerate: pip install accelerate",
    ),
    "a part of a package": (
        {"quant_method": "quanto"},
        {"optimum.quanto"},
        "loaded with optimum-quanto: pip install optimum-quanto",
    ),
    "hqq": ({"quant_method": "hqq"}, {"hqq"}, "loaded with hqq: pip install hqq"),
    "unknown": (
        {"quant_method": "shrunk"},
        set(),
        "quantized by 'shrunk' (quantization_config in config.json); Transformers knows",
    ),
    "no method": ({"bits": 4}, set(), "quantized by no method that it names (quantization_config"),
    "no object": (["fp8"], set(), "quantized by no method that it names (quantization_config"),
    "a number": ({"quant_method": 8}, set(), "quantized by 8 (quantization_config"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_named_before_it_is(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    settings, absent, said = UNREADABLE[case]
    made.without(monkeypatch, ways, *absent)
    refused(plain, told(plain / "mixtral", tmp_path / "told", settings), tmp_path, said)


def refused(plain: Path, model: Path | str, folder: Path, said: str, *more: str) -> None:
    done = command(plain, model, folder / "s.duckdb", *more)
    assert done.exit_code in (1, 2), done.output
    words = without_bars(done.stderr)
    assert said in words
    assert (words.startswith("moescope: "), words.count("\n")) == (True, 1)
    assert not (folder / "s.duckdb").exists()


# what is asked of what; which packages are not there; what the sentence holds
REFUSED: dict[str, tuple[str, list[str], set[str], str]] = {
    "no such way": (
        "mixtral",
        ["--quantize", "3bit"],
        set(),
        "'3bit' is not one of 8bit, 4bit, int8-torchao, fp8-torchao, int4-torchao",
    ),
    "without bitsandbytes": (
        "mixtral",
        ["--quantize", "4bit"],
        {"bitsandbytes"},
        "--quantize 4bit needs bitsandbytes: pip install bitsandbytes",
    ),
    "without torchao": (
        "mixtral",
        ["--quantize", "fp8-torchao"],
        {"torchao"},
        "--quantize fp8-torchao needs torchao: pip install torchao",
    ),
    "without accelerate": (
        "mixtral",
        ["--quantize", "8bit"],
        {"accelerate"},
        "--quantize 8bit needs accelerate: pip install accelerate",
    ),
    "a V-MoE": ("vmoe", ["--quantize", "8bit"], set(), "vmoe is no model of Transformers, and only those take --quantize 8bit"),
    "a model of ours": (
        "mor",
        ["--quantize", "8bit", "--attn", "eager"],
        set(),
        "mor is no model of Transformers, and only those take --quantize 8bit and --attn eager",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_quantized_is_refused(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    model, more, absent, said = REFUSED[case]
    made.without(monkeypatch, ways, *absent)
    refused(plain, model, tmp_path, said, *more)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a CPU lacks")
def test_what_a_cpu_has_no_kernel_for_is_refused(plain: Path, tmp_path: Path) -> None:
    refused(plain, plain / "mixtral", tmp_path, "int4-torchao has no kernel for a cpu: it needs an NVIDIA GPU; here there are",
            "--quantize", "int4-torchao")  # fmt: skip


def test_where_nothing_is_quantized_nothing_is_traced(plain: Path, tmp_path: Path) -> None:
    """Its widths are 32, of which bitsandbytes packs none for a CPU."""
    bits4()
    mixtral().save_pretrained(tmp_path / "narrow")
    (tmp_path / "s").mkdir()
    refused(
        plain, tmp_path / "narrow", tmp_path / "s", "can be quantized by 4bit on a cpu", "--quantize", "4bit", "--device", "cpu"
    )


def test_quantized_twice_is_refused(plain: Path, tmp_path: Path) -> None:
    folder, _ = made.fp8(plain / "mixtral", tmp_path / "fp8")
    refused(plain, folder, tmp_path, "quantized by fp8 already; leave --quantize 8bit out", "--quantize", "8bit")


def test_a_form_that_transformers_does_not_read_is_named(plain: Path, tmp_path: Path) -> None:
    """Experts of compressed-tensors in eight bits, which are not packed."""
    pytest.importorskip("compressed_tensors", reason=REASON.format("compressed-tensors"))
    folder, _ = made.compressed(plain / "mixtral", tmp_path / "int8", 8)
    refused(
        plain, folder, tmp_path, "quantized by compressed-tensors in a form that this Transformers does not read for this model"
    )
