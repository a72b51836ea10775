"""Diffusion pipelines as what is traced: the denoiser in them, from its first call on, and each call of theirs as one thing.

A pipeline is no module and takes prompts, so nothing can be proved before it runs. What its denoiser is first called with is
what its routers are proved on; then that call is made again, recorded.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

from torch import nn

from ..contracts import find
from ..errors import InputError, ModelError, MoescopeError, NotMoEError
from .guard import read_json, unpickled
from .guidance import Guidance
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
        self._guidance = Guidance(pipe, type(pipe).__call__)
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

    def says(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Conditions of the denoiser's call that is running, beside its arguments: the half of guidance, where it is known."""
        half = self._guidance.half(inputs)
        return {} if half is None else {"guidance": half}

    def open(self, begin: Begin, scope: Scope, inputs: Mapping[str, Any] | None = None) -> None:
        """Call `begin(inputs)`, at the denoiser's first call if there are none; calls of the pipeline then run in `scope()`."""
        self._stack.callback(self._listen())
        if inputs is None:
            self._wait(begin, scope)
        else:
            self._begin(begin, scope, dict(inputs))

    def _begin(self, begin: Begin, scope: Scope, inputs: dict[str, Any]) -> None:
        try:
            begin(inputs)
        except BaseException:
            self.close()
            raise
        self._scope = scope

    def _wait(self, begin: Begin, scope: Scope) -> None:
        model, own = self.model, vars(self.model).get("forward")
        names = list(inspect.signature(model.forward).parameters)

        def first(*args: Any, **kwargs: Any) -> Any:
            put_back()
            self._begin(begin, scope, dict(zip(names, args)) | kwargs)
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

    def _listen(self) -> Callable[[], None]:
        """Know when the pipeline is called, whose `__call__` is of its class."""
        kind, had = type(self.pipe), vars(type(self.pipe)).get("__call__")
        original = kind.__call__

        @wraps(original)
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


def load_pipeline(folder: Path, device: Any, dtype: Any, pickle: bool) -> Any:
    """The pipeline in a folder, on a device. ModelError for pickled weights, code of its own, or where diffusers is missing."""
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(kind, str):
        raise ModelError(f"{folder / 'model_index.json'} names no class of diffusers; give the original file")
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        unpickled(part, pickle)
    try:
        import diffusers
    except ImportError as error:
        raise ModelError(f"{folder} is a pipeline of diffusers, which is not installed: pip install diffusers") from error
    if not isinstance(getattr(diffusers, kind, None), type):
        raise ModelError(f"{folder} is a {kind}, which diffusers {diffusers.__version__} has not: code of its own is not run")
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    options = {} if isinstance(dtype, str) else {"torch_dtype": dtype}
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, use_safetensors=None if pickle else True, **options
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def denoiser(pipe: Any) -> nn.Module:
    """What is called in every step. ModelError where a pipeline has none by the usual names."""
    found = next((part for name in ("transformer", "unet") if isinstance(part := getattr(pipe, name, None), nn.Module)), None)
    if found is None:
        raise ModelError(f"this {type(pipe).__name__} has no transformer and no unet, so it denoises nothing; trace its models")
    return found


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
