"""For layers whose decision is what one module, or one method of the block, returns: read it there, and return something else.

A base for contracts; what they say is where the decision is in what was returned, and what one expert makes of a token.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ..base import Contract, Edit, Emit, Record, Site
from ..expert_sum import expert_sum, watch_block
from .router_output import RouterOutput
from .wrapped_method import after_method


class RouterCall(Contract):
    """Subclass it: say `name` (and `method`) and the functions below; the rest of a contract follows from them."""

    name: str
    method = ""  # of the block, where no module returns the decision; else it is what `site.router` returns

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A `Site` if `module`, at path `name`, is such a block."""
        raise NotImplementedError

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """The decision in what was returned; `args`: what it was called with."""
        raise NotImplementedError

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """What would have been returned for these experts and weights, of the shape that `read` gives."""
        raise NotImplementedError

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """(n, H) → (n, H): what one expert makes of some tokens, without its weight."""
        raise NotImplementedError

    def beside(self, site: Site, hidden: Tensor) -> Tensor | float:
        """(T, H) what the block adds to its routed output, e.g. of a shared expert."""
        return 0.0

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Read what is returned behind every hook; and the router's own word, where hooks made another one of it."""
        if self.method:

            def after(args: tuple[Any, ...], output: Any) -> Any:
                emit(self.read(site, args, output))
                return output

            return [after_method(site.block, self.method, after, last=True)]
        assert site.router is not None
        word = RouterOutput(site.router, tensors)

        def at_router(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            said, altered = word.take()
            record = self.read(site, (*args, *kwargs.values()), output)
            record.altered = altered
            if not altered and said is not None and said is not output:
                own = self.read(site, (*args, *kwargs.values()), said)
                record.altered = own.experts.shape != record.experts.shape
                record.decided = None if record.altered else (own.experts, own.weights)
            emit(record)

        return [word.handle, hooks.after(site.router, at_router, kwargs=True, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Return something else."""

        def change(args: tuple[Any, ...], output: Any) -> Any:
            record = self.read(site, args, output)
            return self.write(site, args, output, *edit(record.experts, record.weights))

        if self.method:
            return [after_method(site.block, self.method, change, last=False)]

        def at_router(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return change((*args, *kwargs.values()), output)

        assert site.router is not None
        return [hooks.after(site.router, at_router, kwargs=True, first=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """The block's first argument, and its output."""
        return watch_block(site, keep)

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert on the tokens that have it, times the weight, and what stands beside."""
        hidden = inputs[0]
        return expert_sum(hidden, record, lambda number, tokens: self._one(site, number, tokens)) + self.beside(site, hidden)

    def _one(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        role = site.roles.get(number)
        if role == "identity":
            return hidden
        if role in ("null", "skip"):
            return torch.zeros_like(hidden)
        return self.expert(site, number, hidden)


def tensors(output: Any) -> tuple[Tensor, ...]:
    """The tensors in what a router returned."""
    if torch.is_tensor(output):
        return (output,)
    return tuple(value for value in output if torch.is_tensor(value)) if isinstance(output, tuple | list) else ()
