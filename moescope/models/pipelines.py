"""Diffusion pipelines as what is traced: the denoiser in them, from its first call on, and each call of theirs as one thing.

A pipeline is no module and takes prompts, so nothing can be proved before it runs. What its denoiser is first called with is
what its routers are proved on; then that call is made again, recorded.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import nn

from ..contracts import find
from ..errors import InputError, ModelError, MoescopeError, NotMoEError
from .stages import PARTS, staged

Begin = Callable[[dict[str, Any]], None]
Scope = Callable[[], AbstractContextManager[Any]]


def is_pipeline(model: Any) -> bool:
    """Whether something is a pipeline of diffusers."""
    kinds = [cls for cls in type(model).__mro__ if cls.__module__.partition(".")[0] == "diffusers"]
    return not isinstance(model, nn.Module) and bool(kinds) and isinstance(getattr(model, "components", None), dict)


class Pipeline:
    """A pipeline while it is traced. `model`: its module with routers, or one around two denoisers of which it takes turns.

    NotMoEError where there is neither; InputError where several of its models have routers.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe, self._stack = pipe, ExitStack()
        self._calls: list[ExitStack] = []
        self._scope: Scope | None = None
        self.model = self._model()

    def _model(self) -> nn.Module:
        parts = {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}
        routed = {name: part for name, part in parts.items() if _has_routers(part)}
        kind = type(self.pipe).__name__
        if len(routed) > 1:
            names = ", ".join(routed)
            raise InputError(
                f"several models of this {kind} have routers ({names}): trace one, Tracer(pipe.{min(routed)}, ...)"
            )
        if routed:
            return next(iter(routed.values()))
        if all(name in parts for name in PARTS):
            return self._stack.enter_context(staged(self.pipe))
        raise NotMoEError(
            f"none of the models of this {kind} ({', '.join(parts) or 'it has none'}) has a router; see `moescope families`"
        )

    def open(self, begin: Begin, scope: Scope) -> None:
        """Call `begin(inputs)` when the denoiser is first called, and run the rest of each of the pipeline's calls in `scope()`."""
        model, own = self.model, vars(self.model).get("forward")
        names = list(inspect.signature(model.forward).parameters)

        def first(*args: Any, **kwargs: Any) -> Any:
            put_back()
            begin(dict(zip(names, args)) | kwargs)
            self._scope = scope
            if self._calls:
                self._calls[-1].enter_context(scope())
            return model(*args, **kwargs)

        def put_back() -> None:
            if vars(model).get("forward") is first:
                del model.forward
                if own is not None:
                    model.forward = own

        model.forward = first
        self._stack.callback(put_back)
        self._stack.callback(self._listen())

    def _listen(self) -> Callable[[], None]:
        """Know when the pipeline is called, whose `__call__` is of its class."""
        kind, had = type(self.pipe), vars(type(self.pipe)).get("__call__")
        original = kind.__call__

        def called(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if pipe is not self.pipe:
                return original(pipe, *args, **kwargs)
            with ExitStack() as call:
                self._calls.append(call)
                call.callback(self._calls.pop)
                if self._scope is not None:
                    call.enter_context(self._scope())
                return original(pipe, *args, **kwargs)

        def undo() -> None:
            if had is None:
                del kind.__call__
            else:
                kind.__call__ = had

        kind.__call__ = called
        return undo

    def close(self) -> None:
        """As it was."""
        self._stack.close()


def never_run(pipe: Any) -> ModelError:
    """What to say of a pipeline that was not called inside the block."""
    return ModelError(f"the {type(pipe).__name__} was never run inside the Tracer, so there is nothing to store")


def _has_routers(part: nn.Module) -> bool:
    try:
        return bool(find(part))
    except NotMoEError:
        return False
    except MoescopeError:
        return True  # it looks routed, and the reason why it cannot be traced is said when it is
