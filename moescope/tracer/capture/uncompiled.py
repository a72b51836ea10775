"""What keeps compiled code from running past a trace unseen, for as long as one is attached.

Transformers' `generate` compiles the model's call on a GPU where the cache allows it, and keeps what it compiled: of a traced
model it runs the call as it is. Calling what `torch.compile(model)` returned for the traced model is refused when it happens,
for what was compiled before cannot be listened to. Nothing is written into the model, so its copies are compiled as ever.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ...routers.compiled import refused, runs_eagerly, wrappers

NOTE = "generate would have compiled the model's forward (torch.compile); while it was traced, it ran as it is"
_METHOD = "get_compiled_call"  # of Transformers' models: the call that generate runs for each further token
_traced: WeakKeyDictionary[nn.Module, list[list[str]]] = WeakKeyDictionary()
_originals: dict[type, Callable[..., Any]] = {}


class Uncompiled:
    """From construction to `remove`; `said` holds a sentence if generate would have compiled."""

    def __init__(self, model: nn.Module) -> None:
        self.said: list[str] = []
        self._hooks = [wrapper.register_forward_pre_hook(_refuse) for wrapper in wrappers(model)]
        self._models = [m for m in model.modules() if hasattr(type(m), _METHOD)]
        for part in self._models:
            _traced.setdefault(part, []).append(self.said)
            _replace(next(cls for cls in type(part).__mro__ if _METHOD in vars(cls)))

    def remove(self) -> None:
        """Let all be compiled again; the classes are as they were when nobody traces."""
        for hook in self._hooks:
            hook.remove()
        for part in self._models:
            notes = [said for said in _traced.pop(part, []) if said is not self.said]
            if notes:
                _traced[part] = notes
        if not _traced:
            for owner, original in _originals.items():
                setattr(owner, _METHOD, original)
            _originals.clear()


def _replace(owner: type) -> None:
    if owner in _originals:
        return
    original = _originals[owner] = getattr(owner, _METHOD)

    def call(self: Any, compile_config: Any) -> Callable[..., Any]:
        said = _traced.get(self)
        if said is None:
            return original(self, compile_config)  # type: ignore[no-any-return]
        for notes in said:
            notes[:] = [NOTE]
        return self.__call__  # type: ignore[no-any-return]

    setattr(owner, _METHOD, call)


def _refuse(wrapper: nn.Module, _: Any) -> None:
    if not runs_eagerly():
        raise refused("what was called is the traced model as it")
