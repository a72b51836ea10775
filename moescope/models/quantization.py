"""What a model's weights are quantized by, and how much of it: read off the weights, whatever its configuration says.

Transformers keeps experts in stacked parameters, which many methods leave as they are: "4 bits" may be a tenth of a Mixtral.
"""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from .. import weights

_loaded_as: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def dequantized(model: nn.Module, said: str) -> None:
    """Remember what is not to be seen any more: that the numbers of a model were rounded before they were loaded."""
    _loaded_as[model] = said


def quantization(model: nn.Module) -> str | None:
    """For `models.quantization`: methods, bits and their share of the parameters; None where nothing is quantized."""
    sizes: dict[str, int] = {}
    total = 0
    for form, size in _parts(model):
        total += size
        if form:
            sizes[form] = sizes.get(form, 0) + size
    if sizes:
        return "; ".join(f"{form}, {_percent(size, total)} of parameters" for form, size in sorted(sizes.items()))
    if model in _loaded_as:
        return _loaded_as[model]
    method: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    method = method.get("quant_method", method) if isinstance(method, dict) else getattr(method, "quant_method", method)
    return ", ".join(weights.forms(model)) or (None if method is None else str(getattr(method, "value", method)))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.3g} %"


def _parts(model: nn.Module) -> Iterator[tuple[str | None, int]]:
    """(what it is quantized by, how many numbers it stands for) of every weight."""
    for _, tensor in weights.weights(model):
        yield _known(tensor), weights.size(tensor)


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
