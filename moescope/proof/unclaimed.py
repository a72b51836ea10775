"""Modules that choose, mix or skip while a model runs and are in no contract: named in the warnings of the run.

By behaviour: something picks the largest of computed numbers (top-k, argmax, a sample), makes as many shares as its module has
members of one kind (experts under another name, adapters, levels), or holds the score of a gate of one output against a
threshold. Where a module gives what it takes, of the same shape, a gate of one output through a sigmoid, or one with no more
outputs than it has other parts through a softmax, is one too. Names do not count: a Mixture-of-Depths layer around a Mixtral
block has no child called experts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from ..contracts import Site
from ..words import listed


def _named(*names: str) -> dict[Any, str]:
    owners = (torch, torch.Tensor, nn.functional)
    return {getattr(owner, name): name for owner in owners for name in names if hasattr(owner, name)}


_PICKS = _named("topk", "argmax", "argmin", "sort", "argsort", "multinomial", "gumbel_softmax", "kthvalue")
_SHARES = _named("softmax", "sigmoid")
_THRESHOLDS = _named("gt", "ge", "lt", "le", "greater", "less", "__gt__", "__ge__", "__lt__", "__le__")


class _Watch(TorchFunctionMode):
    """Which module was innermost when something was chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[nn.Module] = []
        self.found: dict[nn.Module, dict[str, None]] = {}
        self.maybe: dict[nn.Module, dict[str, None]] = {}  # where what comes out must be like what went in

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.open and args and torch.is_tensor(args[0]) and args[0].is_floating_point():
            inner = self.open[-1]
            if func in _PICKS and args[0].dim() and args[0].shape[-1] > 1:
                self.found.setdefault(inner, {})[_PICKS[func]] = None
            elif func in _SHARES and torch.is_tensor(output) and output.dim() and output.shape[-1] in _members(inner):
                self.found.setdefault(inner, {})[_SHARES[func]] = None
            elif func in _THRESHOLDS and _gates(inner, 1):
                self.found.setdefault(inner, {})["a threshold"] = None
            elif func in _SHARES and torch.is_tensor(output) and 1 < output.dim() < 4:
                count = output.shape[-1]  # attention's own have four axes
                if _gates(inner, count) and (count == 1) == (_SHARES[func] == "sigmoid") and count < len(inner._modules):
                    self.maybe.setdefault(inner, {})[_SHARES[func]] = None
        return output


def _members(module: nn.Module) -> set[int]:
    """How many members of one kind a module has, two or more."""
    lists = [m for m in module.children() if isinstance(m, nn.ModuleList | nn.ModuleDict | nn.ParameterList) and len(m) > 1]
    stacked = [p.shape[0] for p in module.parameters(recurse=False) if p.dim() == 3 and p.shape[0] > 1]
    return {len(m) for m in lists} | set(stacked)


def _gates(module: nn.Module, count: int) -> bool:
    """Whether a module has a gate of so many outputs."""
    return any(isinstance(m, nn.Linear) and m.out_features == count for m in module.children())


def _alike(given: Any, made: Any) -> bool:
    """Whether a module's output has the shape of what it was called with."""
    made = made[0] if isinstance(made, tuple) and made else made
    taken = next((value for value in given if torch.is_tensor(value) and value.is_floating_point()), None)
    return torch.is_tensor(made) and taken is not None and made.shape == taken.shape


@contextmanager
def watched() -> Iterator[_Watch]:
    """See which modules choose while the block runs."""
    watch = _Watch()

    def enter(module: nn.Module, _: Any) -> None:
        watch.open.append(module)

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if watch.open and watch.open[-1] is module:
            watch.open.pop()
        how = watch.maybe.pop(module, None)
        if how is not None and _alike((*args, *kwargs.values()), output):
            watch.found.setdefault(module, {}).update(how)

    after = register_module_forward_hook(leave, with_kwargs=True, always_call=True)
    handles = [register_module_forward_pre_hook(enter), after]
    try:
        with watch:
            yield watch
    finally:
        for handle in handles:
            handle.remove()


def left_out(model: nn.Module, sites: list[Site], watch: _Watch) -> list[str]:
    """A sentence for every module that chose and is in no site."""
    claimed = {id(m) for site in sites for m in site.block.modules()}
    claimed |= {id(m) for site in sites for m in (site.router, site.experts) if m is not None}
    paths = {id(module): path for path, module in model.named_modules()}
    said: dict[str, list[str]] = {}
    for module, how in watch.found.items():
        if id(module) not in claimed:
            what = f"({type(module).__name__}) chooses by {', '.join(how)} and is in no contract: nothing of that is stored"
            said.setdefault(what, []).append(paths.get(id(module)) or "the model itself")
    return [f"{listed(those)} {what}" for what, those in said.items()]
