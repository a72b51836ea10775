"""What every contract offers: find its routers in a model, read what they execute, write something else, recompute it.

A contract is one file of this folder with an object `contract` that has the methods of `Contract`. A router is met as a
`Site`; each time it routes, the contract hands a `Record` to whoever listens. Tensors in a record stay on their device: a hook
only keeps references.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_STACKS = {
    "vision": ("vision", "visual", "vit", "vision_tower", "image"),
    "talker": ("talker",),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
}

_BETWEEN = ("_original_component", "_orig_mod", "base_layer")


@dataclass(eq=False)
class Site:
    """One router in a model and the modules around it."""

    name: str  # the routed block's path in the model
    block: nn.Module  # what takes hidden states and returns the layer's routed output
    router: nn.Module | None  # the module whose output is the decision, if there is one
    experts: nn.Module | None  # the module that executes it, if there is one
    contract: "Contract"
    n_experts: int  # routed experts
    kind: str = "token_choice"  # column `routers.kind` of the store says the others
    weight_on: str = "output"  # column `routers.weight_on`
    unit: str = "token"  # what one row of a record is about: token | sequence | batch
    before: str = ""  # what the contract puts before a picture's patches in the rows that it hands on: text
    pool_axes: str | None = None  # which axes compete in one top-k: E | L | BL | BE | LE | BLE
    place: str = ""  # where in the layer, if the path does not say it: ffn.up_proj, double.ffn, ...
    parent_site: str | None = None  # name of the site whose expert this router is, in a tree
    parent_expert: int | None = None  # which of its experts
    expert_names: dict[int, str] = field(default_factory=dict)  # where experts have names: adapters, streams, models
    shared: int | None = None  # experts that always run beside the routed ones
    roles: dict[int, str] = field(default_factory=dict)  # of numbers at or above n_experts: identity, skip, ...
    capacity_factor: float | None = None
    output_scale: float = 1.0  # what the experts' sum is multiplied by
    executes_decision: bool = True  # False: what runs does not follow from what the router decides
    warning: str = ""  # what the contract has to say of it in every run
    rule: dict[str, Any] = field(default_factory=dict)  # what else decides (groups, bias, scale, ...), stored as it is
    key: int = -1  # its number in the run that is traced: column `router` of the store
    repeats: bool = False  # a decision may name one expert twice; learnt from the records
    top_k: int | None = None  # learnt from the first record
    score: str | None = None  # what the logits become; learnt from the first record
    images: bool = False  # the model takes pixels and no text
    parent: nn.Module | None = None  # the module that owns the block

    @property
    def special_experts(self) -> int:
        """How many numbers at or above n_experts can be chosen."""
        return len(self.roles)

    @property
    def path(self) -> str:
        """The router's own path where there is one, else the block's."""
        named = [n for n, m in self.block.named_modules() if m is self.router and n]
        path = f"{self.name}.{named[0]}".lstrip(".") if named else self.name
        return own_path(path)

    @property
    def layer(self) -> int | None:
        """The layer's own number: the first number in the path."""
        numbers = re.findall(r"(?:^|\.)(\d+)(?=\.|$)", self.name)
        return int(numbers[0]) if numbers else None

    @property
    def stack(self) -> str:
        """encoder, decoder, vision or talker, by the path; decoder where it does not say."""
        return stack_of(re.sub(r"(text|vision)_moe", "moe", self.name), self.images)  # one layer's routers share its tokens

    @property
    def block_type(self) -> str:
        """ffn or attention; with the modality where a layer has a router for each. What the contract says goes before."""
        if self.place:
            return self.place
        modality = re.search(r"(text|vision)_moe", self.name)
        place = "attention" if "attn" in self.name or "attention" in self.name else "ffn"
        return f"{place}.{modality[1]}" if modality else place


@dataclass(eq=False)
class Record:
    """One call of one router over T rows, as executed; tensors are references, on the model's device.

    experts, weights: (T, k); an expert of -1 is an empty place, one at or above the site's n_experts has a role of its own
    (identity, skip). logits: (T, E). decided: the router's own (experts, weights), where the layer may execute others.
    dropped (T, k) bool, buffer (T, k) places: of experts with capacity. dispatch: (T, k) of soft routing. pool: (T,) number of
    the group of tokens that share a capacity; pool_tokens, capacity: the size of each, and its experts' places. rows: (T,)
    places in the stream, where the router sees some of its tokens. iteration: which of the router's calls in one forward.
    altered: the decision was changed on its way to the experts and the router's own is not kept (it was written over).
    threshold: () of a pool whose places are not counted. executed: (T, k) bool, of what was weighed and sampled: what ran.
    """

    site: Site
    experts: Tensor
    weights: Tensor
    logits: Tensor | None = None
    decided: tuple[Tensor, Tensor] | None = None
    dropped: Tensor | None = None
    buffer: Tensor | None = None
    dispatch: Tensor | None = None
    rows: Tensor | None = None
    pool: Tensor | None = None
    capacity: int | None = None
    pool_tokens: int | None = None
    iteration: int = 0
    altered: bool = False
    threshold: Tensor | None = None
    executed: Tensor | None = None

    @property
    def ran(self) -> Tensor:
        """(T, k) bool: places whose expert ran: not empty, not dropped, and drawn where one is."""
        there = self.experts >= 0
        there = there if self.dropped is None else there & ~self.dropped
        return there if self.executed is None else there & self.executed


Emit = Callable[[Record], None]
Edit = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(experts, weights) of shape (T, k) → what is to be executed instead."""


@dataclass(eq=False)
class Call:
    """What a routed block did once, kept for the proof: its record, what went in, and what came out."""

    record: Record
    inputs: tuple[Any, ...]
    output: Tensor


class Contract:
    """One way in which routers speak: a class made from this one, whose flags say what can be done beside reading."""

    name: str
    general = False  # knows layers by one call only: contracts that know more are asked first
    capacity = False  # an expert has room for so many tokens
    keeps_drops = False  # a dropped assignment is written as an expert of -1
    sums_per_token = False  # the experts' output is the sum over a token's experts, so one of them can be replaced in it
    constant_output = False  # a block's output holds something whoever runs: a bias, a dense part
    product_keys = False  # the block itself chooses, by sums of two half keys
    configured = False  # its router has settings that may be changed between forwards: `router.config`
    routing_object = False  # the experts are called with one object that also holds buffer places and drops

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """The routers that `module` (at path `name`) owns, if it speaks this contract."""
        raise NotImplementedError

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Hook the site so that every call gives `emit` one record."""
        raise NotImplementedError

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Hook the site so that `edit(experts, weights)` is executed instead of what was decided; before any listener."""
        raise NotImplementedError

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """Hook the site so that `keep(inputs, output)` sees what its experts took and gave."""
        raise NotImplementedError

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """The routed output that follows from `record` alone, expert by expert, to be compared with the real one."""
        raise NotImplementedError


def own_path(path: str) -> str:
    """A module's path without what was put in between by TransformerLens, PEFT or torch.compile."""
    return ".".join(part for part in path.split(".") if part not in _BETWEEN)


def stack_of(path: str, images: bool) -> str:
    """encoder, decoder, vision or talker, by a module's path; `images`: the model takes pixels and no text."""
    parts = set(re.split(r"[._]", path))
    return "vision" if images else next((s for s, words in _STACKS.items() if parts & set(words)), "decoder")


def named(args: tuple[Any, ...], kwargs: dict[str, Any], count: int) -> tuple[Any, ...]:
    """The first `count` arguments of a call, whether by place or by name."""
    return args[:count] if len(args) >= count else tuple([*args, *kwargs.values()][:count])


def renamed(args: tuple[Any, ...], kwargs: dict[str, Any], new: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with its first arguments replaced by `new`."""
    places = len(args)
    rest = dict(zip(kwargs, [*new[places:], *list(kwargs.values())[max(0, len(new) - places) :]]))
    return (*new[:places], *args[len(new) :]), rest
