"""Whatever form a model's weights have, they are read here and nowhere else.

Plain tensors; tensor subclasses that wrap others (torchao, DTensor) or add to one (bitsandbytes, GGUF); quantized, sparse and
nested tensors; the packed weights of quantized modules, which are no parameters; what Accelerate keeps on a disk or the CPU.
What cannot be read is None here, never an exception: each form refuses in a way of its own. Nothing talks to other processes:
of a tensor that is sharded, the part that this one holds is read.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from . import hidden_modules

Piece: TypeAlias = Tensor | str | None
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_SPARSE = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


def home(model: nn.Module) -> torch.device:
    """Where a model's inputs go: to its first parameter, or to where Accelerate runs what it keeps elsewhere."""
    first = next(model.parameters(), None)
    if first is not None and not first.is_meta:
        return first.device
    hook: Any = getattr(model, "_hf_hook", None)
    there = getattr(hook, "execution_device", None)
    if there is None:
        return next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
    return torch.device(there if not isinstance(there, int) else f"cuda:{there}")


def precision(model: nn.Module) -> torch.dtype:
    """The type of a model's first floating parameter; float32 where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point() and p.element_size() > 1), torch.float32)


def state(model: nn.Module) -> dict[str, Any]:
    """The state dict, and what takes part and is in no state dict.

    What Accelerate keeps elsewhere is on the meta device here, to be `fetched` one at a time: all may be more than fits.
    """
    with _as_packed(model):
        held = dict(model.state_dict())
    return held | hidden_modules.tensors(model)


@contextmanager
def _as_packed(model: nn.Module) -> Iterator[None]:
    """bitsandbytes unpacks what it packed for a CPU when it is asked for a state dict, and rounds its scales: put back."""
    held = [m.weight for m in model.modules() if isinstance(getattr(m, "weight", None), Tensor)]
    packed = [(w, w.data, dict(vars(w.quant_state))) for w in held if getattr(w, "quant_state", None) is not None]
    try:
        yield
    finally:
        for weight, numbers, settings in packed:
            weight.data = numbers
            vars(weight.quant_state).clear()
            vars(weight.quant_state).update(settings)


def weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by name, hidden ones too, and the packed weights and biases of quantized modules beside them."""
    for name, parameter in module.named_parameters():
        yield name, fetched(module, name, parameter)
    yield from ((n, t) for n, t in hidden_modules.tensors(module).items() if isinstance(t, nn.Parameter))
    for path, part in module.named_modules():
        for kind in ("weight", "bias"):
            method = getattr(part, kind, None)
            if inspect.ismethod(method) and not inspect.signature(method).parameters and torch.is_tensor(value := method()):
                yield f"{path}.{kind}".lstrip("."), value


def size(tensor: Tensor) -> int:
    """How many numbers a weight stands for: of one packed by bitsandbytes, those before it was packed."""
    shape = getattr(getattr(tensor, "quant_state", None), "shape", None)
    return math.prod(shape) if shape is not None else tensor.numel()


def forms(model: nn.Module) -> list[str]:
    """The names of the forms of weights that are no plain tensors of floats, sorted."""
    return sorted({form for _, tensor in weights(model) if (form := _form(tensor)) is not None})


def sharded(tensor: Any) -> bool:
    """Whether this process may hold a part of the tensor only (a DTensor that is neither replicated nor alone)."""
    placements, mesh = getattr(tensor, "placements", None), getattr(tensor, "device_mesh", None)
    return mesh is not None and mesh.size() > 1 and not all(p.is_replicate() for p in placements or ())


@torch.no_grad()
def dense(tensor: Tensor) -> Tensor | None:
    """The numbers of a weight as a plain dense floating tensor of its shape; None where they are not at hand.

    Numbers of one byte count as codes: what they stand for depends on scales that are kept elsewhere.
    """
    try:
        found = _dense(tensor)
    except Exception:  # any subclass may refuse any operation, each with an error of its own
        return None
    plain = found is not None and _form(found) is None and not found.is_meta
    return found if plain else None


@torch.no_grad()
def pieces(value: Any) -> list[Piece]:
    """What is in an entry of a state dict: plain dense tensors and texts, in a fixed order; None for what cannot be read."""
    if torch.is_tensor(value):
        try:
            return _pieces(value)
        except Exception:  # as in dense
            return [None]
    if isinstance(value, dict):
        return [piece for key in sorted(value, key=repr) for piece in (repr(key), *pieces(value[key]))]
    if isinstance(value, list | tuple):
        return [piece for part in value for piece in pieces(part)]
    known = value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.layout | Enum)
    return [repr(value) if known else None]


def as_bytes(tensor: Tensor) -> Tensor:
    """(bytes,) uint8 of a plain tensor's values in order, whatever its strides (one that was expanded has a stride of 0)."""
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    return (flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)).contiguous().view(torch.uint8)


def _form(tensor: Tensor) -> str | None:
    if type(tensor) not in _PLAIN:
        return type(tensor).__name__
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    plain = tensor.is_floating_point() and tensor.element_size() > 1
    return None if plain else str(tensor.dtype).removeprefix("torch.")


def _dense(tensor: Tensor) -> Tensor | None:
    if sharded(tensor) or tensor.is_nested:
        return None
    if tensor.is_quantized:
        return tensor.dequantize()
    if type(tensor) in _PLAIN:
        return tensor if tensor.layout is torch.strided else tensor.to_dense()
    inner = _inner(tensor)
    if len(inner) == 1 and _alike(inner[0], tensor):
        return dense(inner[0])
    return tensor.dequantize() if inner else storage(tensor)


def _pieces(tensor: Tensor) -> list[Piece]:
    if tensor.is_meta:
        return [None]
    if tensor.is_nested:
        return pieces(list(tensor.unbind()))
    if type(tensor) not in _PLAIN:
        return _of_subclass(tensor)
    if tensor.is_quantized:
        return [tensor.int_repr(), str(tensor.dtype), *_scales(tensor)]
    if tensor.layout is torch.strided:
        return [tensor.detach().resolve_conj().resolve_neg()]
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce()
        return [str(tuple(tensor.shape)), tensor.indices(), tensor.values()]
    if tensor.layout in _SPARSE:
        return [str(tuple(tensor.shape)), *(getattr(tensor, name)() for name in _SPARSE[tensor.layout]), tensor.values()]
    return [tensor.to_dense()]


def _scales(tensor: Tensor) -> list[Piece]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [repr((tensor.q_scale(), tensor.q_zero_point()))]
    axis = repr(tensor.q_per_channel_axis())
    return [axis, tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]


def _of_subclass(tensor: Tensor) -> list[Piece]:
    inner = _inner(tensor)
    if not inner:
        plain = storage(tensor)
        return [None] if plain is None else pieces(plain)
    if len(inner) == 1 and _alike(inner[0], tensor):
        return pieces(inner[0])
    beside = [p for p in pieces(_context(tensor)) if p is not None]  # a mesh or a kernel's name is no content
    return [f"{type(tensor).__name__}{tuple(tensor.shape)}{tensor.dtype}", *pieces(inner), *beside]


def _inner(tensor: Tensor) -> list[Tensor]:
    """The tensors that a wrapping subclass holds, by its own account or among its attributes; none if it wraps nothing."""
    if hasattr(tensor, "__tensor_flatten__"):
        held = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return [inner for inner in held if torch.is_tensor(inner)]  # a DTensor counts its mesh in
    own = vars(tensor) if storage(tensor) is None else {}
    return [own[name] for name in sorted(own) if torch.is_tensor(own[name])]


def _context(tensor: Tensor) -> Any:
    if hasattr(tensor, "__tensor_flatten__"):
        return tensor.__tensor_flatten__()[1]
    return {name: value for name, value in vars(tensor).items() if not torch.is_tensor(value)}


def storage(tensor: Tensor) -> Tensor | None:
    """The plain tensor under a subclass that adds to one, on the same numbers; None under one that has none of its own."""
    with torch._C.DisableTorchFunctionSubclass(), torch._C._DisableTorchDispatch():
        plain = tensor.as_subclass(Tensor).detach()
        try:
            return plain if plain.numel() == 0 or plain.untyped_storage().data_ptr() else None
        except RuntimeError:  # a wrapper has no storage that could be asked
            return None


def _alike(inner: Tensor, outer: Tensor) -> bool:
    return inner.dtype == outer.dtype and inner.shape == outer.shape


def fetched(model: nn.Module, name: str, value: Any) -> Any:
    """The value of that name; one on the meta device from where Accelerate keeps it, if it does."""
    if not (torch.is_tensor(value) and value.is_meta):
        return value
    places = [i for i, letter in enumerate(name) if letter == "."]
    for path, rest in [(name[:i], name[i + 1 :]) for i in reversed(places)] + [("", name)]:
        hook: Any = getattr(model.get_submodule(path), "_hf_hook", None)
        for one in getattr(hook, "hooks", [hook]):
            kept = getattr(one, "weights_map", None)
            if kept is not None:
                with suppress(KeyError):
                    return kept[rest]
    return value
