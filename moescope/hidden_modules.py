"""Modules that take part in a model and are no part of it for torch: values of a plain dictionary or list, or a method's owner.

`eval()`, `to()`, `state_dict()` and `parameters()` do not reach them. So their weights are counted and hashed here, a proof
puts them into evaluation with the rest, and a run in which they stayed in training says so.
"""

from collections.abc import Iterator
from types import MethodType
from typing import Any

from torch import Tensor, nn

from .words import listed

_OURS = {"_parameters", "_buffers", "_modules"}
_DEEP = 4  # containers in containers


def hidden(model: nn.Module) -> dict[str, nn.Module]:
    """By a path that says where they were found, each once; with their own children, without what is registered elsewhere."""
    known = {id(module) for module in model.modules()}
    found: dict[str, nn.Module] = {}
    waiting = list(model.named_modules())
    while waiting:
        path, owner = waiting.pop(0)
        for name, value in _plain_attributes(owner):
            for where, module in _modules(f"{path}.{name}".lstrip("."), value, _DEEP):
                for inner, child in module.named_modules(prefix=where):
                    if id(child) not in known:
                        known.add(id(child))
                        found[inner] = child
                        waiting.append((inner, child))
    return found


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """By path, the parameters, buffers and plain tensors that hidden modules have themselves."""
    found: dict[str, Tensor] = {}
    for path, module in hidden(model).items():
        own = {**module._parameters, **module._buffers, **dict(_plain_attributes(module))}
        found |= {f"{path}.{name}": value for name, value in own.items() if isinstance(value, Tensor)}
    return found


def evaluate(model: nn.Module) -> None:
    """What `model.eval()` does not do."""
    for module in hidden(model).values():
        module.training = False


def notes(model: nn.Module) -> list[str]:
    """A sentence where the model is in evaluation and some that take part in it are not."""
    left = [path for path, module in hidden(model).items() if module.training and isinstance(module, _RANDOM)]
    if model.training or not left:
        return []
    return [
        f"{listed(left)} stayed in training, since eval() does not reach what is in plain dictionaries and lists: what they "
        "drop at random is in what was traced; call eval() on each of them"
    ]


_RANDOM = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


def _plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module holds beside its parameters, buffers, children and hooks."""
    for name, value in list(vars(module).items()):
        if name not in _OURS and not (name.startswith("_") and "_hooks" in name):
            yield name, value


def _modules(path: str, value: Any, deep: int) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield path, value
    elif isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, dict | list | tuple) and deep:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in list(pairs):
            yield from _modules(f"{path}[{key!r}]", inner, deep - 1)
