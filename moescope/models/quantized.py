"""Quantized weights on the way in: those that a checkpoint brings, and those made of a plain one (`--quantize`).

MXFP4, compressed-tensors and FP8 without a GPU for it are read back as plain numbers on loading: their kernels would run past
routers and experts, or change the model in its first forward. What a model then has, `quantization.py` says.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ..errors import InputError, ModelError
from .loaded import How
from .quantization import dequantized, quantized_sizes

_PACKAGES = {  # method of a checkpoint: what it is loaded with, (name to install, name to import)
    "mxfp4": [],
    "fp8": [("accelerate", "accelerate")],
    "mxfp8": [("accelerate", "accelerate")],
    "bitsandbytes": [("bitsandbytes", "bitsandbytes"), ("accelerate", "accelerate")],
    "torchao": [("torchao", "torchao")],
    "compressed-tensors": [("compressed-tensors", "compressed_tensors")],
    "gptq": [("gptqmodel", "gptqmodel"), ("optimum", "optimum")],
    "awq": [("gptqmodel", "gptqmodel"), ("accelerate", "accelerate")],
    "auto-round": [("auto-round", "auto_round")],
    "quanto": [("optimum-quanto", "optimum.quanto")],
    "hqq": [("hqq", "hqq")],
    "aqlm": [("aqlm", "aqlm")],
    "eetq": [("eetq", "eetq")],
    "vptq": [("vptq", "vptq")],
    "spqr": [("spqr_quant", "spqr_quant")],
    "fbgemm_fp8": [("fbgemm-gpu", "fbgemm_gpu")],
}
_ROUNDED = {"mxfp4": "MXFP4", "fp8": "FP8", "mxfp8": "MXFP8", "compressed-tensors": "compressed-tensors"}


@dataclass(frozen=True)
class Way:
    """One way to quantize a plain checkpoint: with which package, and the settings that Transformers is given."""

    package: str
    settings: Callable[[nn.Module, torch.device, Any], Any]  # of a model without numbers, the device, the type
    lacks: Callable[[torch.device], str] = lambda _: ""  # why it cannot be done on this device


def _bits8(model: nn.Module, device: torch.device, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def _bits4(model: nn.Module, device: torch.device, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    skipped = _unpackable(model) if device.type == "cpu" else None
    compute = dtype if isinstance(dtype, torch.dtype) else None
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute, llm_int8_skip_modules=skipped
    )


def _unpackable(model: Any) -> list[str] | None:
    """Layers that bitsandbytes cannot pack for a CPU (routers and gates of a few outputs), and those left out anyway."""
    from transformers.quantizers.base import get_keys_to_not_convert

    layers = [(name, m.weight.shape) for name, m in model.named_modules() if type(m) is nn.Linear]
    odd = [name for name, (out, into) in layers if out % 32 or into % 64]
    return [*get_keys_to_not_convert(model), *odd] if odd else None


def _torchao(kind: str) -> Callable[[nn.Module, torch.device, Any], Any]:
    def settings(model: nn.Module, device: torch.device, dtype: Any) -> Any:
        import torchao.quantization as ao
        from transformers import TorchAoConfig

        made = getattr(ao, kind)(**({"int4_packing_format": "tile_packed_to_4d"} if "Int4" in kind else {"version": 2}))
        return TorchAoConfig(ao.FqnToConfig({f"re:{pattern}": made for pattern in _matrices(model, "Int4" not in kind)}))

    return settings


def _matrices(model: nn.Module, stacked: bool) -> list[str]:
    """Patterns of the matrices of linear layers, and of experts stacked as (E, out, in), which are multiplied one by one."""
    linear = [f"{name}.weight" for name, module in model.named_modules() if type(module) is nn.Linear]
    experts = [
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, weight in module.named_parameters(recurse=False)
        if stacked and weight.dim() == 3 and getattr(module, "is_transposed", None) is False
    ]
    return list(dict.fromkeys(re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in [*linear, *experts]))


def _no_gpu(device: torch.device) -> str:
    return "" if device.type == "cuda" else f"has no kernel for a {device.type}: it needs an NVIDIA GPU"


_BYTES = {  # a weight, with its scales: 32 bits for every 64 of four bits, one for a row of eight
    "8bit": 1.0,
    "4bit": 0.5 + 4 / 64,
    "int8-torchao": 1.0,
    "fp8-torchao": 1.0,
    "int4-torchao": 0.5 + 4 / 128,
}
WAYS = {
    "8bit": Way("bitsandbytes", _bits8),
    "4bit": Way("bitsandbytes", _bits4),
    "int8-torchao": Way("torchao", _torchao("Int8WeightOnlyConfig")),
    "fp8-torchao": Way("torchao", _torchao("Float8WeightOnlyConfig")),
    "int4-torchao": Way("torchao", _torchao("Int4WeightOnlyConfig"), _no_gpu),
}


def check_way(asked: str | None, device: torch.device) -> str | None:
    """What was asked for. InputError for a way that is none, whose package is missing, or that the device has no kernel for."""
    if asked is None:
        return None
    if asked not in WAYS:
        raise InputError(f"quantization {asked[:80]!r} is not one of {', '.join(WAYS)}")
    way = WAYS[asked]
    if missing := _missing([(way.package, way.package), ("accelerate", "accelerate")]):
        raise InputError(f"--quantize {asked} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    if why := way.lacks(device):
        there = [name for name, other in WAYS.items() if not other.lacks(device)]
        raise InputError(f"--quantize {asked} {why}; here there are {', '.join(there)}")
    return asked


def brought(name: str, config: dict[str, Any]) -> str | None:
    """The method by which a checkpoint's weights are quantized. ModelError if it is unknown or its package is missing."""
    settings = next(
        (c["quantization_config"] for c in (config, *_inner(config)) if c.get("quantization_config") is not None), None
    )
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if method is None and isinstance(settings, dict) and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        method = "bitsandbytes"
    if not isinstance(method, str) or method not in _known():
        said = f"by {method!r}" if method is not None else "by no method that it names"
        raise ModelError(
            f"{name} holds weights that are quantized {said[:90]} (quantization_config in config.json); Transformers knows "
            f"{', '.join(sorted(_known()))}"
        )
    if missing := _missing(_PACKAGES.get(method, [])):
        raise ModelError(
            f"{name} holds weights quantized by {method}, which are loaded with {' and '.join(missing)}: pip install "
            f"{' '.join(missing)}"
        )
    return method


def _inner(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Configurations of a part (text_config, ...), where some checkpoints say it."""
    return [part for part in config.values() if isinstance(part, dict) and "quantization_config" in part]


def _known() -> set[str]:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    return {name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZATION_CONFIG_MAPPING}


def _missing(packages: list[tuple[str, str]]) -> list[str]:
    def there(module: str) -> bool:
        try:
            return find_spec(module) is not None
        except ModuleNotFoundError:  # of the package that it is a part of
            return False

    return [install for install, module in packages if not there(module)]


def options(name: str, cls: Any, config: Any, how: How, method: str | None) -> dict[str, Any]:
    """What `from_pretrained` is told of quantization. InputError for a checkpoint that is quantized already."""
    used = [(WAYS[how.quantize].package,) * 2] if how.quantize is not None else _PACKAGES.get(method or "", [])
    for _, module in used:
        import_module(
            module
        )  # what it has to say at that, it says here: Transformers' own log is read while weights are loaded
    if how.quantize is not None:
        if method is not None:
            raise InputError(
                f"{name} holds weights that are quantized by {method} already; leave --quantize {how.quantize} out"
            )
        way = WAYS[how.quantize]
        with torch.device("meta"):
            bare = cls(config) if issubclass(cls, nn.Module) else cls.from_config(config, trust_remote_code=how.remote)
        made = {"quantization_config": way.settings(bare, how.device, how.dtype)}
        return made | ({"experts_implementation": "eager"} if way.package == "torchao" else {})
    if method == "torchao":  # stacked experts in its tensors know no grouped product, and have a type of their own
        return {"experts_implementation": "eager", "dtype": "auto"}
    if method in ("mxfp4", "compressed-tensors"):
        return {"quantization_config": _read_back(method)}
    return {}


def _read_back(method: str) -> Any:
    from transformers import CompressedTensorsConfig, Mxfp4Config

    return (Mxfp4Config if method == "mxfp4" else CompressedTensorsConfig)(dequantize=True)


def bytes_each(way: str | None, model: nn.Module, device: torch.device) -> Callable[[str, torch.Tensor], float] | None:
    """Bytes that a weight (path, tensor) of a model without numbers will take once it is quantized that way; None for no way."""
    if way is None:
        return None
    kinds = set(_quantized(way, model, device))
    share = _BYTES[way]
    return lambda path, tensor: tensor.numel() * share if path in kinds else float(tensor.nbytes)


def _quantized(way: str, model: nn.Module, device: torch.device) -> Iterator[str]:
    """Paths of the weights that a way quantizes."""
    if WAYS[way].package == "torchao":
        patterns = [re.compile(pattern) for pattern in _matrices(model, "int4" not in way)]
        yield from (name for name, _ in model.named_parameters() if any(p.fullmatch(name) for p in patterns))
        return
    from transformers.quantizers.base import get_keys_to_not_convert

    odd = _unpackable(model) if way == "4bit" and device.type == "cpu" else None
    kept = odd or get_keys_to_not_convert(model)
    for name, module in model.named_modules():
        if type(module) is nn.Linear and not any(name == part or name.endswith(f".{part}") for part in kept):
            yield f"{name}.weight"


def stays_packed(method: str | None, device: torch.device) -> bool:
    """Whether weights that a checkpoint brings quantized stay so in memory; the others are read back in the model's type."""
    return not (method is None or method in ("mxfp4", "compressed-tensors") or (method in _ROUNDED and device.type != "cuda"))


def stays_where_loaded(how: How, method: str | None) -> bool:
    """Whether a model must be loaded straight to its device, since its weights cannot be moved afterwards."""
    return how.quantize is not None or method is not None


def settle(name: str, model: Any, how: How, method: str | None) -> list[str]:
    """After loading: one type for what was read back; sentences on it. ModelError where nothing was quantized on the way in."""
    if how.quantize is not None and not quantized_sizes(model)[0]:
        raise ModelError(
            f"nothing of {name} can be quantized by {how.quantize} on a {how.device.type}: it has no linear layers, or none of "
            "the widths that the kernels take (4bit on a cpu: multiples of 64 in, of 32 out); try another of "
            f"{', '.join(WAYS)}"
        )
    if method not in _ROUNDED or getattr(model, "is_quantized", False):
        return []
    dtype = how.dtype if isinstance(how.dtype, torch.dtype) else model.config.dtype
    kept = [*(getattr(model, "_keep_in_fp32_modules", None) or ()), *(model._keep_in_fp32_modules_strict or ())]
    for name, parameter in model.named_parameters():  # what lies beside FP8 weights keeps the type of the checkpoint
        if parameter.is_floating_point() and not any(part in name for part in kept):
            parameter.data = parameter.data.to(dtype)
    precision = str(dtype).removeprefix("torch.")
    dequantized(model, f"{_ROUNDED[method]} of the checkpoint, read back as {precision}")
    return [
        f"the checkpoint's {_ROUNDED[method]} weights were read back as {precision} on loading, and are computed with as such"
    ]
