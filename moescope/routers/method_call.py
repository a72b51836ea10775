"""For layers written by hand whose decision is what one method of the block returns: a base for contracts of other packages.

docs/plugin.md has an example in twenty lines.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from .base import Contract, Edit, Emit, Record, Site

Step = Callable[[tuple[Any, ...], Any], Any]


class MethodCall(Contract):
    """Subclass it: say `name`, `method`, and the five functions below; the rest of a contract follows from them."""

    name: str
    method: str  # of the block

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A `Site` if `module`, at path `name`, is such a block."""
        raise NotImplementedError

    def read(self, args: tuple[Any, ...], output: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """(experts (T, k), weights (T, k), logits (T, E) or None) from the method's arguments and what it returned."""
        raise NotImplementedError

    def write(self, output: Any, experts: Tensor, weights: Tensor) -> Any:
        """What the method would have returned for these experts and weights."""
        raise NotImplementedError

    def expert(self, block: Any, number: int, hidden: Tensor) -> Tensor:
        """(n, H) → (n, H): what one expert makes of some tokens, without its weight."""
        raise NotImplementedError

    def beside(self, block: Any, hidden: Tensor) -> Tensor | float:
        """(T, H) what the block adds to its routed output, e.g. of a shared expert."""
        return 0.0

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """See what the method returns, after all edits."""

        def after(args: tuple[Any, ...], output: Any) -> Any:
            emit(Record(site, *self.read(args, output)))
            return output

        return [_wrapped(site.block, self.method).add(after, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Return something else."""

        def change(args: tuple[Any, ...], output: Any) -> Any:
            experts, weights, _ = self.read(args, output)
            return self.write(output, *edit(experts, weights))

        return [_wrapped(site.block, self.method).add(change, last=False)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """The block's first argument, and its output."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            hidden = (*args, *kwargs.values())[0]
            made = output[0] if isinstance(output, tuple) else output
            keep((hidden.reshape(-1, hidden.shape[-1]),), made.reshape(-1, made.shape[-1]))

        return [hooks.after(site.block, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert on the tokens that chose it, times the weight, and what stands beside."""
        (hidden,) = inputs
        total = torch.zeros_like(hidden, dtype=torch.float32) + self.beside(site.block, hidden)
        for number in record.experts[record.experts >= 0].unique().tolist():
            token, slot = (record.experts == number).nonzero(as_tuple=True)
            made = self.expert(site.block, number, hidden[token]) * record.weights[token, slot, None]
            total.index_add_(0, token, made.float())
        return total


class _Wrapped(hooks.Own):
    """A method of one object, with steps after it: edits (the latest first), then listeners."""

    def __init__(self, block: nn.Module, method: str) -> None:
        self.block, self.method, self.steps = block, method, list[tuple[bool, Step]]()
        self.original = getattr(block, method)
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
            delattr(self.block, self.method)
            _all[self.block].pop(self.method)
            hooks.unmark(self.block)


class _Handle(RemovableHandle):
    def __init__(self, wrapped: _Wrapped, step: tuple[bool, Step]) -> None:
        super().__init__(OrderedDict())
        self._wrapped, self._step = wrapped, step

    def remove(self) -> None:
        """Take the step out; the method is as it was when the last one goes."""
        self._wrapped.drop(self._step)


_all: WeakKeyDictionary[nn.Module, dict[str, _Wrapped]] = WeakKeyDictionary()


def _wrapped(block: nn.Module, method: str) -> _Wrapped:
    known = _all.setdefault(block, {})
    if method not in known:
        known[method] = _Wrapped(block, method)
    return known[method]
