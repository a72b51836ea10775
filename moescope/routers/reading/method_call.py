"""For layers written by hand whose decision is what one method of the block returns: a base for contracts of other packages.

docs/plugin.md has an example in twenty lines.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..base import Contract, Edit, Emit, Record, Site
from ..expert_sum import expert_sum, watch_block
from .wrapped_method import after_method


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

        return [after_method(site.block, self.method, after, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Return something else."""

        def change(args: tuple[Any, ...], output: Any) -> Any:
            experts, weights, _ = self.read(args, output)
            return self.write(output, *edit(experts, weights))

        return [after_method(site.block, self.method, change, last=False)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """The block's first argument, and its output."""
        return watch_block(site, keep)

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert on the tokens that chose it, times the weight, and what stands beside."""
        (hidden,) = inputs
        made = expert_sum(hidden, record, lambda number, tokens: self.expert(site.block, number, tokens))
        return made + self.beside(site.block, hidden)
