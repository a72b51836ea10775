"""Layers that let experts choose tokens in their own forward, from a gate's logits (diffusers' NucleusMoELayer).

`experts(rows, counts)` gets the chosen tokens sorted by expert: C = max(1, ceil(factor · S / E)) of each sequence for each
expert. What comes out is weighed by the score, divided by the sum of a token's scores, times a scale, and added to
`shared_expert`'s.

Each row is a slot: an expert took a token. Another decision is executed in the same slots: a slot's token goes to another of
the experts that it now has, and the slot's output is multiplied by new / old weight. What is left over, of tokens with fewer
slots than experts, is added where the shared expert's output is. So the layer's own sums stay as they are, bit by bit, where
nothing is changed.
"""

import math
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ..base import Edit, Emit, Record, Site
from ..rows.pool_record import by_token, spread
from ..rows.slots import Slots, fitted
from .router_call import RouterCall

_PARTS = ("gate", "experts", "shared_expert", "capacity_factor", "route_scale", "use_sigmoid")


def chooses_inline(block: nn.Module) -> bool:
    """Whether a block is of this kind."""
    return all(hasattr(block, part) for part in _PARTS)


class InlinePool(RouterCall):
    """Read from the gate's logits by the layer's own operations; the proof shows that they are the layer's."""

    name = "expert_choice_pool"
    constant_output = True

    def site(self, name: str, block: Any) -> Site:
        """A layer of this kind."""
        return Site(
            name, block, block.gate, block.experts, self, int(block.num_experts), "expert_choice", pool_axes="L",
            capacity_factor=float(block.capacity_factor), score="sigmoid" if block.use_sigmoid else "softmax", shared=1,
        )  # fmt: skip

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Read the logits behind every hook, and what was written instead when the experts are called."""
        assert site.router is not None
        assert site.experts is not None
        seen: list[Tensor] = []

        def at_gate(_: nn.Module, __: Any, logits: Tensor) -> None:
            seen[:] = [logits]

        def at_experts(_: nn.Module, __: Any) -> None:
            record = self.read(site, (), seen.pop())
            written = _state[site.block].decision if site.block in _state else None
            if written is not None:
                record.experts, record.weights = written
            emit(record)

        return [hooks.after(site.router, at_gate, last=True), hooks.before(site.experts, at_experts, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Change the decision behind the gate; it is executed when the experts are called."""
        assert site.router is not None
        written = _state.setdefault(site.block, _Written(self, site))

        def at_gate(_: nn.Module, __: Any, logits: Tensor) -> None:
            if written.decision is None:
                record = self.read(site, (), logits)
                written.decision = record.experts, record.weights
                written.slots = self.slots(site, logits)
            written.decision = edit(*written.decision)

        return [hooks.after(site.router, at_gate, first=True), written.used()]

    def read(self, site: Site, args: tuple[Any, ...], output: Tensor) -> Record:
        """(T, E) numbers and weights from logits (B, S, E); the pool is a sequence."""
        slots, places = self.slots(site, output), _places(site, output)
        weights = output.new_zeros(output[..., 0].numel(), site.n_experts, dtype=slots.weight.dtype)
        weights[slots.token, slots.expert] = slots.weight
        chosen = torch.zeros_like(weights, dtype=torch.bool)
        chosen[slots.token, slots.expert] = True
        return by_token(site, chosen.view_as(output), weights.view_as(output), output, len(output), places, None)

    def slots(self, site: Site, logits: Tensor) -> Slots:
        """The layer's rows in its own order, by its own operations."""
        block: Any = site.block
        scores = (torch.sigmoid(logits.float()) if block.use_sigmoid else logits.float().softmax(-1)).to(logits.dtype)
        affinity = scores.transpose(1, 2)
        taken = affinity.topk(_places(site, logits), -1).indices
        first = torch.arange(len(logits), device=logits.device).view(-1, 1, 1) * logits.shape[1]
        token = (taken + first).transpose(0, 1).reshape(-1)
        weight = affinity.gather(-1, taken).transpose(0, 1).reshape(-1)
        sums = weight.new_zeros(logits[..., 0].numel()).scatter_add_(0, token, weight)
        expert = torch.arange(site.n_experts, device=logits.device).repeat_interleave(len(token) // site.n_experts)
        return Slots(expert, token, weight / (sums[token] + 1e-12) * block.route_scale)

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """The experts' own forward with all rows for one of them."""
        counts = torch.zeros(site.n_experts, dtype=torch.long, device=hidden.device)
        counts[number] = len(hidden)
        return site.experts.forward(hidden, counts)  # type: ignore[union-attr, no-any-return]

    def beside(self, site: Site, hidden: Tensor) -> Tensor:
        """The shared expert."""
        return site.block.shared_expert.forward(hidden)  # type: ignore[union-attr, operator, no-any-return]


class _Written:
    """What the edits of one block have written in the forward that runs, and the hooks that execute it."""

    def __init__(self, contract: InlinePool, site: Site) -> None:
        self._contract, self._site, self._users = contract, site, list[_Use]()
        self.decision: tuple[Tensor, Tensor] | None = None
        self.slots: Slots | None = None
        self._extra: Tensor | None = None

    def used(self) -> "_Use":
        """A handle; the hooks are there as long as one is left."""
        if not self._users:
            self._hook()
        self._users.append(_Use(self))
        return self._users[-1]

    def drop(self, use: "_Use") -> None:
        """One user less; the layer is as it was when the last one goes."""
        if use not in self._users:
            return
        self._users.remove(use)
        if not self._users:
            _state.pop(self._site.block, None)
            for handle in self._handles:
                handle.remove()

    def _hook(self) -> None:
        block: Any = self._site.block
        self._handles = [
            hooks.before(block, self._begin, kwargs=True),
            hooks.before(block.experts, self._hand_over, first=True),
            hooks.after(block.experts, self._take_back, first=True),
            hooks.after(block.shared_expert, self._add, first=True),
        ]

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = (*args, *kwargs.values())[0]
        self.decision, self._hidden = None, hidden.reshape(-1, hidden.shape[-1])

    def _hand_over(self, _: nn.Module, args: tuple[Any, ...]) -> Any:
        assert self.decision is not None
        assert self.slots is not None
        rows, counts = args
        self._fit = fitted(self.slots, *spread(*self.decision, self._site.n_experts))
        sizes = torch.bincount(self._fit.expert, minlength=len(counts)).to(counts)
        self._extra = torch.zeros_like(self._hidden)
        for number in self._fit.extra_expert.unique().tolist():
            of = self._fit.extra_expert == number
            token, weight = self._fit.extra_token[of], self._fit.extra_weight[of, None]
            self._extra[token] += self._contract.expert(self._site, number, self._hidden[token]) * weight
        return rows[self._fit.order], sizes

    def _take_back(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        back = torch.empty_like(output)
        back[self._fit.order] = output
        return back * self._fit.ratio[:, None].to(output.dtype)

    def _add(self, _: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        extra, self._extra = self._extra, None
        return None if extra is None or not len(self._fit.extra_token) else output + extra.view_as(output)


class _Use(RemovableHandle):
    def __init__(self, written: _Written) -> None:
        super().__init__(OrderedDict())
        self._written = written

    def remove(self) -> None:
        """Give it up."""
        self._written.drop(self)


_state: WeakKeyDictionary[nn.Module, _Written] = WeakKeyDictionary()


def _places(site: Site, logits: Tensor) -> int:
    return max(1, math.ceil(site.block.capacity_factor * logits.shape[1] / site.n_experts))  # type: ignore[operator]
