"""What a model's weights are quantized by, and how much of it: read off the weights, whatever its configuration says.

Transformers keeps experts in stacked parameters, which many methods leave as they are: "4 bits" may be a tenth of a Mixtral.
"""

from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ... import weights

_loaded_as: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def dequantized(model: nn.Module, said: str) -> None:
    """Remember what is not to be seen any more: that the numbers of a model were rounded before they were loaded."""
    _loaded_as[model] = said


def quantization(model: nn.Module) -> str | None:
    """For `models.quantization`: methods, bits and their share of the parameters; None where nothing is quantized."""
    sizes, total = quantized_sizes(model)
    if sizes:
        return "; ".join(f"{form}, {_percent(size, total)} of parameters" for form, size in sorted(sizes.items()))
    if model in _loaded_as:
        return _loaded_as[model]
    method: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    method = method.get("quant_method", method) if isinstance(method, dict) else getattr(method, "quant_method", method)
    forms = ", ".join(weights.forms(model))
    if method is None or forms:
        return forms or None
    return f"{getattr(method, 'value', method)}, 0 % of parameters"


def quantized_sizes(model: nn.Module) -> tuple[dict[str, int], int]:
    """(parameters by what they are quantized by, all parameters), of the packages whose tensors say it."""
    sizes: dict[str, int] = {}
    total = 0
    for _, tensor in weights.weights(model):
        total += (size := weights.size(tensor))
        if form := _known(tensor):
            sizes[form] = sizes.get(form, 0) + size
    return sizes, total


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.3g} %"


def _known(tensor: Tensor) -> str | None:
    """The method in words, of packages whose tensors say what they are."""
    package, name = type(tensor).__module__.partition(".")[0], type(tensor).__name__
    if package == "torchao":
        return f"torchao {name.removesuffix('Tensor').lower()}" + (" with its input" if _input_too(tensor) else "")
    if name == "Int8Params" and package == "bitsandbytes" and tensor.element_size() == 1:
        return "bitsandbytes 8-bit"
    if name == "Params4bit" and getattr(tensor, "quant_state", None) is not None:
        return f"bitsandbytes 4-bit {tensor.quant_state.quant_type}"
    return None


def _input_too(tensor: Any) -> bool:
    return getattr(tensor, "act_quant_kwargs", None) is not None
