"""Tiny checkpoints with quantized weights, written tensor by tensor, and the numbers that they stand for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM, MixtralConfig, MixtralForCausalLM

FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]  # OCP MX 1.0, E2M1
COMMON: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_experts_per_tok": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip


def mixtral64(folder: Path, seed: int = 0) -> Path:
    """A Mixtral whose widths are multiples of 64, as 4-bit kernels want them: 2 layers, 8 experts, top-2."""
    torch.manual_seed(seed)
    made = MixtralForCausalLM(MixtralConfig(num_local_experts=8, architectures=["MixtralForCausalLM"], **COMMON)).eval()
    made.save_pretrained(folder)
    return folder


def gpt_oss64(folder: Path, seed: int = 0) -> Path:
    """A gpt-oss of the same size: 4 experts, top-2."""
    torch.manual_seed(seed)
    config = GptOssConfig(num_local_experts=4, head_dim=16, architectures=["GptOssForCausalLM"], **COMMON)
    GptOssForCausalLM(config).eval().save_pretrained(folder)
    return folder


def _rewritten(plain: Path, folder: Path, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def _routed(name: str) -> bool:
    """Whether such formats quantize this weight: a matrix that is no embedding, norm or router."""
    return name.endswith(".weight") and not any(part in name for part in ("embed", "norm", "lm_head", ".gate.", ".router."))


def fp8(plain: Path, folder: Path, block: int = 32) -> tuple[Path, dict[str, Tensor]]:
    """DeepSeek's FP8: e4m3 with a scale for each square of `block`; what the weights stand for beside the folder."""
    tensors, meant = dict[str, Tensor](), dict[str, Tensor]()
    for name, tensor in load_file(plain / "model.safetensors").items():
        if not _routed(name):
            tensors[name] = meant[name] = tensor
            continue
        high, wide = tensor.shape
        squares = tensor.reshape(high // block, block, wide // block, block)
        scale = squares.abs().amax((1, 3)) / 448
        codes = (squares / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        tensors |= {name: codes.reshape(high, wide), f"{name}_scale_inv": scale}
        meant[name] = (codes.float() * scale[:, None, :, None]).reshape(high, wide)
    settings = {"quant_method": "fp8", "weight_block_size": [block, block], "activation_scheme": "dynamic", "fmt": "e4m3"}
    return _rewritten(plain, folder, settings, tensors), meant


def mxfp4(plain: Path, folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """gpt-oss's MXFP4: experts in blocks of 32 four-bit floats with a power of two; low nibble first."""
    tensors, meant = dict[str, Tensor](), dict[str, Tensor]()
    table = torch.tensor(FP4)
    for name, tensor in load_file(plain / "model.safetensors").items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            tensors[name] = meant[name] = tensor
            continue
        blocks = tensor.transpose(1, 2).unflatten(-1, (-1, 32))  # (E, out, in / 32, 32)
        power = (blocks.abs().amax(-1, keepdim=True) / 6).log2().ceil()
        codes = ((blocks / 2**power)[..., None] - table).abs().argmin(-1)
        tensors[f"{name}_blocks"] = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
        tensors[f"{name}_scales"] = (power[..., 0] + 127).to(torch.uint8)
        meant[name] = (table[codes] * 2**power).flatten(-2).transpose(1, 2)
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]}  # fmt: skip # noqa: E501
    return _rewritten(plain, folder, settings, tensors), meant


def compressed(plain: Path, folder: Path, bits: int = 8) -> tuple[Path, dict[str, Tensor]]:
    """compressed-tensors: whole numbers with a scale for each row; those of four bits eight to an int32, low bits first."""
    tensors, meant = dict[str, Tensor](), dict[str, Tensor]()
    most = 2 ** (bits - 1) - 1
    for name, tensor in load_file(plain / "model.safetensors").items():
        if not _routed(name):
            tensors[name] = meant[name] = tensor
            continue
        scale = tensor.abs().amax(1, keepdim=True) / most
        codes = (tensor / scale).round()
        meant[name] = codes * scale
        tensors[f"{name}_scale"] = scale
        if bits == 8:
            tensors[name] = codes.to(torch.int8)
            continue
        nibbles = (codes + 8).to(torch.int64).unflatten(-1, (-1, 8))
        packed = (nibbles << (4 * torch.arange(8))).sum(-1)
        tensors[f"{name}_packed"] = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
        tensors[f"{name}_shape"] = torch.tensor(tensor.shape)
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "channel"}
    settings = {
        "quant_method": "compressed-tensors", "format": "int-quantized" if bits == 8 else "pack-quantized",
        "quantization_status": "compressed", "ignore": ["lm_head", "re:.*gate$"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip
    return _rewritten(plain, folder, settings, tensors), meant


def saved(plain: Path, folder: Path, settings: Any, **options: Any) -> Path:
    """Quantized by Transformers on the way in, and saved as it is then."""
    AutoModelForCausalLM.from_pretrained(plain, quantization_config=settings, **options).save_pretrained(folder)
    return folder


def without(monkeypatch: pytest.MonkeyPatch, module: Any, *packages: str) -> None:
    """What `module` looks for with find_spec is not installed, of these packages."""
    there = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in packages else there(name))
