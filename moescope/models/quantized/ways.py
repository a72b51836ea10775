"""Ways to quantize a plain checkpoint on the way in (`--quantize`): with which package and settings, and what it saves."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ...errors import InputError


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
    if missing := not_installed([(way.package, way.package), ("accelerate", "accelerate")]):
        raise InputError(f"--quantize {asked} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    if why := way.lacks(device):
        there = [name for name, other in WAYS.items() if not other.lacks(device)]
        raise InputError(f"--quantize {asked} {why}; here there are {', '.join(there)}")
    return asked


def bytes_each(way: str | None, model: nn.Module, device: torch.device) -> Callable[[str, torch.Tensor], float] | None:
    """Bytes that a weight (path, tensor) of a model without numbers takes once it is quantized that way; None for no way."""
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


def not_installed(packages: list[tuple[str, str]]) -> list[str]:
    """What is to be installed, of (name to install, name to import)."""

    def there(module: str) -> bool:
        try:
            return find_spec(module) is not None
        except ModuleNotFoundError:  # of the package that it is a part of
            return False

    return [install for install, module in packages if not there(module)]
