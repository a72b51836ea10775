"""Maps of modules to devices: made by Accelerate, checked where they were given, and what each device gets by them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ...errors import InputError, ModelError
from ...words import listed
from .placement import Device


def made(model: nn.Module, strategy: str, bounds: Mapping[Device, int], ratio: float = 1.0) -> dict[str, Device]:
    """A map of a skeleton within `bounds` bytes by device. `ratio`: what its weights take, of what the skeleton's would.

    ModelError where Accelerate is not installed.
    """
    try:
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_balanced_memory
    except ImportError as error:
        raise ModelError(
            "a model is spread by Accelerate, which is not installed: pip install accelerate, or say --device cpu"
        ) from error
    whole = sorted(getattr(model, "_no_split_modules", None) or ())
    most: Any = {place: int(n / ratio) for place, n in bounds.items()}
    if strategy != "sequential" and any(isinstance(place, int) for place in most):
        most = get_balanced_memory(model, max_memory=most, no_split_module_classes=whole, low_zero=strategy == "balanced_low_0")
    return dict(infer_auto_device_map(model, max_memory=most, no_split_module_classes=whole))


def checked(model: nn.Module, places: Mapping[str, Device]) -> Mapping[str, Device]:
    """A map that was given. InputError for modules that the model has not, and for weights that it leaves out."""
    if set(places) == {""}:
        return places
    known = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    kind = type(model).__name__
    if strange := sorted(set(places) - known):
        parts = ", ".join(name for name, _ in model.named_children())
        raise InputError(
            f"the device map names {listed([name[:80] for name in strange])}, which {kind} has not; its parts are "
            f"{parts}, and what is in them"
        )
    left = [name for name, _ in model.named_parameters() if place_of(name, places) is None]
    if left:
        raise InputError(
            f'the device map leaves out {listed(left)} of {kind}; name their modules too, or all that is left by ""'
        )
    return places


def disjoint(model: nn.Module, places: Mapping[str, Device]) -> dict[str, Device]:
    """The same map with no module inside another: Accelerate hooks the outer one over the inner, and Transformers takes
    layers.10 for a part of layers.1."""
    found: dict[str, Device] = {}

    def walk(name: str, module: nn.Module, place: Device | None) -> None:
        place, prefix = places.get(name, place), f"{name}." if name else ""
        if place is not None and not any(other.startswith(prefix) and other != name for other in places):
            found[name] = place
            return
        for part, child in module.named_children():
            walk(prefix + part, child, place)
        for part in (*module._parameters, *module._buffers):
            if (own := places.get(prefix + part, place)) is not None:
                found[prefix + part] = own

    walk("", model, None)
    return found


def place_of(name: str, places: Mapping[str, Device]) -> Device | None:
    """Where a weight goes: by the longest name in a map that it is, or lies in."""
    while name and name not in places:
        name = name.rpartition(".")[0]
    return places.get(name)


def shares(
    model: nn.Module, places: Mapping[str, Device], weigh: Callable[[str, Tensor], float], total: int
) -> dict[Device, int]:
    """Bytes that each device gets, in the order of the map, of `total` bytes."""
    found: dict[Device, float] = dict.fromkeys(places.values(), 0.0)
    for name, tensor in {id(t): (n, t) for n, t in model.named_parameters()}.values():
        place = place_of(name, places)
        if place is not None:
            found[place] += weigh(name, tensor)
    scale = total / (sum(found.values()) or 1.0)
    return {place: round(taken * scale) for place, taken in found.items()}
