"""A method of one object with steps after it: for decisions that no module returns."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch.utils.hooks import RemovableHandle

from ... import hooks

Step = Callable[[tuple[Any, ...], Any], Any]
"""(the method's arguments, what it returned so far) → what it returns."""


def after_method(block: Any, method: str, step: Step, *, last: bool) -> RemovableHandle:
    """Run `step` after each call of `block.method`: edits (the latest first), then those that listen (`last`)."""
    known = _all.setdefault(block, {})
    if method not in known:
        known[method] = _Wrapped(block, method)
    return known[method].add(step, last)


class _Wrapped(hooks.Own):
    """In place of the method, for as long as there are steps."""

    def __init__(self, block: Any, method: str) -> None:
        self.block, self.method, self.steps = block, method, list[tuple[bool, Step]]()
        self.original, self.own = getattr(block, method), vars(block).get(method)  # Accelerate replaces it on the instance
        setattr(block, method, self)
        hooks.mark(block)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.original(*args, **kwargs)
        for step in [s for last, s in self.steps if not last] + [s for last, s in self.steps if last]:
            output = step((*args, *kwargs.values()), output)
        return output

    def add(self, step: Step, last: bool) -> RemovableHandle:
        self.steps.insert(len(self.steps) if last else 0, (last, step))
        return _Handle(self, (last, step))

    def drop(self, step: tuple[bool, Step]) -> None:
        if step in self.steps:
            self.steps.remove(step)
        if not self.steps and vars(self.block).get(self.method) is self:
            delattr(self.block, self.method) if self.own is None else setattr(self.block, self.method, self.own)
            _all[self.block].pop(self.method)
            hooks.unmark(self.block)


class _Handle(RemovableHandle):
    def __init__(self, wrapped: _Wrapped, step: tuple[bool, Step]) -> None:
        super().__init__(OrderedDict())
        self._wrapped, self._step = wrapped, step

    def remove(self) -> None:
        """Take the step out; the method is as it was when the last one goes."""
        self._wrapped.drop(self._step)


_all: WeakKeyDictionary[Any, dict[str, _Wrapped]] = WeakKeyDictionary()
