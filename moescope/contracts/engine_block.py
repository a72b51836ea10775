"""Layers that another program runs (llama.cpp): what ran is handed to a module of ours, and what is to run is asked of it.

The output is recomputed from what each expert gave in the program itself, weighed as the record says.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Edit, Emit, Record, Site
from ..routers.engine_block import EngineBlock, Executed


class EngineBlocks(Contract):
    """`block(executed, output)` once a forward, when the program has ended it."""

    name = "engine_block"
    sums_per_token = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A block of ours."""
        if isinstance(module, EngineBlock):
            yield Site(
                name, module, module.ffn_gate_inp, None, self, module.n_experts, shared=module.shared, top_k=module.top_k,
                score=module.score, rule=dict(module.rule),
            )  # fmt: skip

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """What ran."""

        def handed(_: nn.Module, args: tuple[Any, ...]) -> None:
            ran: Executed = args[0]
            emit(Record(site, ran.experts, ran.weights, ran.logits))

        return [hooks.before(site.block, handed, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Asked by the program between the router and the experts."""
        edits = _told(site).edits
        return [_Undo(lambda: edits.append(edit), lambda: edits.remove(edit))]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """What entered the experts, which ran, what each gave; and their sum."""
        told = _told(site)

        def seen(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            ran: Executed = args[0]
            keep((ran.hidden, ran.experts, ran.parts), output)

        def more(number: int) -> None:
            told.watched += number

        return [hooks.after(site.block, seen), _Undo(lambda: more(1), lambda: more(-1))]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """The sum of what the record's experts gave, weighed; an expert that did not run for a token gives nothing."""
        _, ran, parts = inputs
        same = record.experts[:, :, None] == ran[:, None, :]  # (T, k of the record, k that ran)
        each = (same.to(parts.dtype) * record.weights.to(parts.dtype)[..., None]).sum(1)
        return torch.einsum("tk,tkd->td", each, parts)


class _Undo(RemovableHandle):
    """Something done, and undone when it is removed."""

    def __init__(self, do: Callable[[], object], undo: Callable[[], object]) -> None:
        self._undo: Callable[[], object] | None = undo
        do()

    def remove(self) -> None:
        """Undo it, once."""
        if self._undo is not None:
            undo, self._undo = self._undo, None
            undo()


def _told(site: Site) -> Any:
    assert isinstance(site.block, EngineBlock)
    return site.block.told


contract = EngineBlocks()
