"""Quantized weights on the way in: those that a checkpoint brings, and those made of a plain one (`--quantize`).

MXFP4, compressed-tensors and FP8 without a GPU for it are read back as plain numbers on loading: their kernels would run past
routers and experts, or change the model in its first forward. What a model then has, `quantization.py` says.
"""

from collections.abc import Collection
from importlib import import_module
from typing import Any

import torch

from ...errors import InputError, ModelError
from ..loaded import How
from ..skeleton import skeleton
from .quantization import dequantized, quantized_sizes
from .ways import WAYS, not_installed

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
    if missing := not_installed(_PACKAGES.get(method, [])):
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
        bare = skeleton(cls, config, how.dtype, how.remote)
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


def stays_packed(method: str | None, device: torch.device) -> bool:
    """Whether weights that a checkpoint brings quantized stay so in memory; the others are read back in the model's type."""
    return not (method is None or method in ("mxfp4", "compressed-tensors") or (method in _ROUNDED and device.type != "cuda"))


def check_spread(name: str, places: Collection[int | str], how: How, method: str | None) -> None:
    """ModelError where weights that are quantized in memory would go to the disk, or to memory beside a GPU.

    places: where parts of a model that is spread go; none of one that is not.
    """
    way = how.quantize or (method if stays_packed(method, how.device) else None)
    if way is not None and ("disk" in places or ("cpu" in places and len(set(places)) > 1)):
        raise ModelError(
            f"{name} quantized by {way} does not fit where it may go, and quantized weights lie neither on the disk nor "
            "in memory beside a GPU: let it take more (--max-memory, another --device-map), or trace it as it is"
        )


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
