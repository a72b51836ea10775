"""Modules that torch.compile compiled before anybody listened: their graphs do not run the hooks of the modules in them.

A module is compiled in one of three ways: wrapped (`torch.compile(module)`), its call (`module.compile()`), or its forward.
What is hooked inside one is not seen; a module whose own forward alone was compiled calls its hooks around it.
"""

import gc
import sys
from collections.abc import Iterable
from typing import Any

from torch import nn

from ..errors import ModelError
from .base import Site

WRAPPED = "_orig_mod"  # what torch.compile calls the module in its wrapper
CURE = (
    'to trace it, put `with torch.compiler.set_stance("force_eager"):` around the Tracer and the calls in it, or trace and '
    "call the model as it was before it was compiled (that of torch.compile(model) is model._orig_mod)"
)


def is_wrapper(model: object) -> bool:
    """Whether this is what `torch.compile(module)` returns."""
    return isinstance(model, nn.Module) and WRAPPED in model._modules


def runs_eagerly() -> bool:
    """Whether compiled code runs as it was written at present (the stance `force_eager`, or no compiler at all)."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    return dynamo is None or dynamo.config.disable or dynamo.eval_frame._stance.stance == "force_eager"


def refused(name: str) -> ModelError:
    """The refusal of a model of which `name` is compiled."""
    return ModelError(f"{name} is compiled (torch.compile), and its graphs run past the hooks that would record it; {CURE}")


def check_compiled(model: nn.Module, sites: Iterable[Site]) -> None:
    """ModelError if the model, or a part with hooked modules in it, would run as a compiled graph."""
    if runs_eagerly():
        return
    hooked = {id(m) for site in sites for m in (site.router, site.experts, site.block) if m is not None}
    for name, module in model.named_modules():
        call = module._compiled_call_impl is not None
        if call or is_wrapper(module) or _compiled(getattr(module, "forward", None)):
            inside = any(id(m) in hooked for m in module.modules() if m is not module or call)
            if inside or module is model:
                raise refused(name or type(module).__name__)


def _compiled(forward: Any) -> bool:
    return hasattr(forward, "_torchdynamo_orig_callable")


def has_run() -> bool:
    """Whether this process has run compiled code."""
    utils: Any = sys.modules.get("torch._dynamo.utils")
    return utils is not None and bool(utils.counters["frames"])


def wrappers(model: nn.Module) -> list[nn.Module]:
    """What `torch.compile(model)` returned and somebody holds; looked for only where compiled code has run."""
    if not has_run():
        return []
    kind = sys.modules["torch._dynamo"].eval_frame.OptimizedModule
    return [held for held in gc.get_objects() if issubclass(type(held), kind) and held._modules.get(WRAPPED) is model]
