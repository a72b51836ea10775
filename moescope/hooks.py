"""Hooks that belong to one module alone: they do nothing in its copies, are left out of pickles, and say so to compilers.

A plain hook is a function in a module's dictionaries, so `copy.deepcopy(model)` and `torch.save(model)` take it along: a copy
would go on writing into somebody's run. Here every hook knows its module and is silent at any other, and while a module has
such hooks its copies are made without them. TorchDynamo breaks its graph at them, so that compiled code is traced too; where it
may not break (`fullgraph=True`) its error carries our sentence. Under `torch.export` they are silent: nothing is executed.

torch calls a module that has hooks in a roundabout way, which takes longer than what a router's hook does in a decode step.
While nothing but our own hooks hangs on a module, its calls go straight (`_Straight`); with any other, as torch has it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as machinery
from torch.utils.hooks import RemovableHandle

_REFUSAL = (
    "moescope reads routers in Python, which cannot be part of a full graph: compile without fullgraph=True inside the Tracer, "
    "or end it before"
)
PLACES = {
    "_forward_pre_hooks": ("_forward_pre_hooks_with_kwargs",),
    "_forward_hooks": ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
}


class Own:
    """What moescope leaves on a module for a while; copies and pickles of the module are made without it."""

    own: Any = None  # the module's attribute that it stands in for, if it had one


class Hook(Own):
    """A function that is called for one module only."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        self.module, self.function = module, function

    def __call__(self, module: nn.Module, *call: Any) -> Any:
        """What torch calls; None, and nothing done, at another module and under torch.export."""
        if torch.compiler.is_exporting():
            return None
        return _called(self, module, *call)


def _called(hook: Hook, module: nn.Module, *call: Any) -> Any:
    if module is not hook.module and not getattr(module, "_is_replica", False):  # a replica of DataParallel is no copy
        return None
    return hook.function(module, *call)


# What torch.compiler.disable(reason=...) sets, without importing all of TorchDynamo for it.
_called._torchdynamo_disable = True  # type: ignore[attr-defined]
_called._torchdynamo_disable_msg = _REFUSAL  # type: ignore[attr-defined]


class Handle(RemovableHandle):
    """A hook that can be taken away, or put behind all others of its module."""

    def __init__(self, module: nn.Module, hooks: dict[int, Any], inner: RemovableHandle, last: bool) -> None:
        self._module, self._hooks, self._inner, self.last = module, hooks, inner, last
        self.id = inner.id

    def remove(self) -> None:
        """Take the hook away."""
        self._inner.remove()
        _go_straight(self._module)
        unmark(self._module)

    def stay_last(self) -> None:
        """Hooks that somebody placed later run before this one from now on."""
        if self.id in self._hooks:
            self._hooks.move_to_end(self.id)  # type: ignore[attr-defined]


def before(
    module: nn.Module, function: Callable[..., Any], *, kwargs: bool = False, first: bool = False, last: bool = False
) -> Handle:
    """Call `function(module, args)` (with `kwargs`: `(module, args, kwargs)`) before each call of `module`.

    `first`, `last`: before or behind all others, which may hand other arguments on.
    """
    inner = module.register_forward_pre_hook(Hook(module, function), with_kwargs=kwargs, prepend=first)
    mark(module)
    return Handle(module, module._forward_pre_hooks, inner, last)


def after(
    module: nn.Module,
    function: Callable[..., Any],
    *,
    kwargs: bool = False,
    first: bool = False,
    last: bool = False,
    always: bool = False,
) -> Handle:
    """Call `function(module, args, output)` (with `kwargs`: `(module, args, kwargs, output)`) after each call of `module`.

    `args` are what `forward` was called with, whatever other hooks made of them. `first`, `last`: before or behind all others,
    for output that other hooks may replace. `always`: also when the call ends by an exception, with None for its output.
    """
    inner = module.register_forward_hook(Hook(module, function), with_kwargs=kwargs, prepend=first, always_call=always)
    mark(module)
    _go_straight(module)
    return Handle(module, module._forward_hooks, inner, last)


def stay_last(handles: list[Any], all_of_them: bool = False) -> None:
    """Put every hook that has to be the last one of its module there again, or all of them."""
    for handle in handles:
        if isinstance(handle, Handle) and (handle.last or all_of_them):
            handle.stay_last()


def mark(module: Any) -> None:
    """From now on `module` (or another object of ours to watch) is copied and pickled without what is our own."""
    module.__dict__.setdefault("__reduce_ex__", _Reduced(module))


def unmark(module: Any) -> None:
    """As it was, once nothing of ours is left on the module."""
    if isinstance(module.__dict__.get("__reduce_ex__"), _Reduced) and not _owned(module):
        del module.__dict__["__reduce_ex__"]


def _owned(module: Any) -> bool:
    hooked = any(isinstance(hook, Own) for place in PLACES for hook in getattr(module, place, {}).values())
    return hooked or any(isinstance(v, Own) and not isinstance(v, _Reduced) for v in module.__dict__.values())


class _Straight(Own):
    """In place of a module's `_call_impl`: forward, then our hooks, while there is nothing else to be called; else torch's."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._seen = module, list[int]()
        self._steps: list[tuple[Callable[..., Any], bool]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `nn.Module._call_impl` does."""
        module = self._module
        if torch.compiler.is_compiling():
            return nn.Module._call_impl(module, *args, **kwargs)
        hooks = module._forward_hooks
        if [*hooks] != self._seen:
            self._look(module)
        if (
            not self._steps or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
            or any(_GLOBAL) or torch._C._get_tracing_state()
        ):  # fmt: skip
            return nn.Module._call_impl(module, *args, **kwargs)
        output = module.forward(*args, **kwargs)
        for function, named in self._steps:
            changed = function(module, args, kwargs, output) if named else function(module, args, output)
            if changed is not None:
                output = changed
        return output

    def _look(self, module: nn.Module) -> None:
        """Which hooks there are now: no steps where one is not ours, or wants to know of exceptions."""
        hooks = module._forward_hooks
        self._seen, named = [*hooks], module._forward_hooks_with_kwargs
        ours = all(isinstance(hook, Hook) and hook.module is module for hook in hooks.values())
        straight = ours and not module._forward_hooks_always_called
        self._steps = [(hook.function, key in named) for key, hook in hooks.items()] if straight else []  # type: ignore[attr-defined]


class _Replicated(Own):
    """`module._replicate_for_data_parallel` of an instance: a replica is called as torch has it, for it is another module."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self) -> nn.Module:
        """A replica without what belongs to this instance."""
        replica: nn.Module = type(self._module)._replicate_for_data_parallel(self._module)  # type: ignore[operator]
        for name in _STRAIGHT:
            replica.__dict__.pop(name, None)
        return replica


_STRAIGHT = {"_call_impl": _Straight, "_replicate_for_data_parallel": _Replicated}
_GLOBAL = [
    machinery._global_forward_hooks, machinery._global_forward_pre_hooks, machinery._global_backward_hooks,
    machinery._global_backward_pre_hooks,
]  # fmt: skip


def _go_straight(module: nn.Module) -> None:
    """Put in, or take away, what calls a module that has hooks of ours behind its forward."""
    hooked = any(isinstance(hook, Hook) for hook in module._forward_hooks.values())
    for name, kind in _STRAIGHT.items():
        own = module.__dict__.get(name)
        if hooked and own is None and type(module)._call_impl is nn.Module._call_impl:
            module.__dict__[name] = kind(module)
        elif not hooked and isinstance(own, kind):
            del module.__dict__[name]


class _Reduced(Own):
    """`module.__reduce_ex__` of an instance: copy and pickle ask for it before they ask the class."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, protocol: int) -> Any:
        reduced: Any = type(self._module).__reduce_ex__(self._module, protocol)  # type: ignore[call-arg]
        if not isinstance(reduced, tuple) or len(reduced) < 3 or not isinstance(reduced[2], dict):
            return reduced
        return (*reduced[:2], _without(reduced[2]), *reduced[3:])


def _without(state: dict[str, Any]) -> dict[str, Any]:
    """A module's `__dict__` without what is our own."""
    kept = {name: value for name, value in state.items() if not isinstance(value, Own)}
    kept |= {name: value.own for name, value in state.items() if isinstance(value, Own) and value.own is not None}
    for place, flags in PLACES.items():
        ours = {number for number, hook in state.get(place, {}).items() if isinstance(hook, Own)}
        for name in (place, *flags) if ours else ():
            kept[name] = type(state[name])((k, v) for k, v in state[name].items() if k not in ours)
    return kept
