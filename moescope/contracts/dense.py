"""Gates that weigh all their experts: dense mixtures, trees of gates, selectors; also those that leave weights of exactly 0.

Three forms. `Weighed`: a block owns `experts` and a `gate` that returns (weights (T, E), logits) and says in `mixes` what they
are: dense, tree or token_choice; an expert that is such a block itself is a child in a tree. `Emotions`: a block whose method
`weigh` returns the weights of a local and of a global gate, both of which multiply each expert. `Bank`: neural-trees, where one
bank of networks gives the gates of all nodes.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Record, Site
from ..routers.reading.router_call import RouterCall
from ..routers.reading.wrapped_method import after_method

_KINDS = ("dense", "tree", "token_choice")


class Weighed(RouterCall):
    """A gate that returns a weight for every expert."""

    name = "dense"

    def __init__(self) -> None:
        self._parents: WeakKeyDictionary[nn.Module, tuple[str, int]] = WeakKeyDictionary()

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a gate says that it mixes; a block is met before the experts that it owns."""
        gate, experts = module._modules.get("gate"), module._modules.get("experts")
        kind = getattr(gate, "mixes", None)
        if gate is None or not isinstance(experts, nn.ModuleList) or kind not in _KINDS:
            return
        site = Site(name, module, gate, experts, self, len(experts), str(kind), score=getattr(gate, "score", None))
        site.parent_site, site.parent_expert = self._parents.get(module, (None, None))
        if site.parent_expert is not None:
            site.place = ".".join((site.block_type, *re.findall(r"experts\.(\d+)", name)))
        for number, expert in enumerate(experts):
            self._parents[expert] = name, number
        yield site

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """The weights that are not 0: in the order of the experts, or of the k largest."""
        weights, logits = output
        count = getattr(site.router, "top_k", site.n_experts) if site.kind == "token_choice" else site.n_experts
        if count < site.n_experts:
            given, experts = weights.topk(count, dim=-1)
        else:
            given, experts = weights, torch.arange(site.n_experts, device=weights.device).expand_as(weights)
        return Record(site, experts.masked_fill(given == 0, -1), given, logits)

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Weights at other experts, 0 elsewhere."""
        return dense(experts, weights, site.n_experts).to(output[0].dtype), output[1]

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """(n, H) one expert, or the whole tree below."""
        assert isinstance(site.experts, nn.ModuleList)
        made: Tensor = site.experts[number].forward(hidden)
        return made


class Joint(RouterCall):
    """Gates whose decisions are multiplied before anything is executed: one method returns them all, each has a site."""

    name = "dense"

    def part(self, site: Site, output: Any) -> Tensor:
        """(T, E) this site's own weights in what the method returned."""
        raise NotImplementedError

    def given(self, site: Site, output: Any, weights: Tensor) -> Any:
        """What the method would have returned for other weights (T, E) of this site."""
        raise NotImplementedError

    def whole(self, site: Site, output: Any, args: tuple[Any, ...]) -> Tensor:
        """The block's output that follows from all gates' decisions."""
        raise NotImplementedError

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """Every expert of this gate, in order."""
        weights = self.part(site, output)
        numbers = torch.arange(site.n_experts, device=weights.device).expand_as(weights)
        return Record(site, numbers.masked_fill(weights == 0, -1), weights)

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Other weights of this gate."""
        return self.given(site, output, dense(experts, weights, site.n_experts))

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """What the block took, all gates' decisions as they were executed, and what it gave."""
        said: list[Any] = []

        def decided(_: tuple[Any, ...], output: Any) -> Any:
            said[:] = [output]
            return output

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            given = tuple(t.detach().clone() for t in (*args, *kwargs.values()))
            keep(
                (given[0].reshape(-1, given[0].shape[-1]), said[0], given),
                output.detach().reshape(-1, output.shape[-1]).clone(),
            )

        heard = after_method(site.block, self.method, decided, last=True)
        return [heard, hooks.after(site.block, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """All gates' decisions with this record in the place of this gate's own."""
        _, output, args = inputs
        new = self.write(site, args, output, record.experts, record.weights)
        made = self.whole(site, new, args)
        return made.reshape(-1, made.shape[-1])


class Emotions(Joint):
    """MoEE: a gate for each place and one for the whole sequence."""

    method = "weigh"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """Two sites where a block has both gates."""
        children = module._modules
        if not all(children.get(n) is not None for n in ("local_gate", "global_gate", "experts")) or not hasattr(
            module, "weigh"
        ):
            return
        experts: Any = children["experts"]
        names = dict(enumerate(getattr(module, "names", ())))
        for gate, unit in (("global", "sequence"), ("local", "token")):  # they are seen in the other order
            site = Site(f"{name}.{gate}_gate", module, None, experts, self, len(experts), "dense", unit=unit)
            site.place, site.expert_names, site.score = f"attention.{gate}", names, "softmax"
            yield site

    def part(self, site: Site, output: Any) -> Tensor:
        """(B S, E) or (B, E)."""
        return output[_gate(site)].reshape(-1, site.n_experts)

    def given(self, site: Site, output: Any, weights: Tensor) -> Any:
        """The other gate as it was."""
        own = output[_gate(site)]
        return {**output, _gate(site): weights.to(own.dtype).view_as(own)}

    def whole(self, site: Site, output: Any, args: tuple[Any, ...]) -> Tensor:
        """Σ over experts of both gates' weights times the expert."""
        both = output["local"] * output["global"][:, None]
        assert isinstance(site.experts, nn.ModuleList)
        made = [both[..., e, None] * expert.forward(*args[:2]) for e, expert in enumerate(site.experts)]
        return torch.stack(made).sum(0)


class Bank(Joint):
    """neural-trees: logarithms of gates (N, nodes, branches) of a complete tree, its nodes level by level."""

    method = "_log_gate_probabilities"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for every node of the tree."""
        if not hasattr(module, self.method) or not all(hasattr(module, n) for n in ("gates", "experts", "branching_factor")):
            return
        block: Any = module
        for node in reversed(range(block.n_gates)):  # they are seen in the other order
            site = Site(self._path(name, node), module, None, block.experts, self, block.branching_factor, "tree")
            site.place, site.score, site.rule = f"node{node}", "softmax", {"node": node}
            if node:
                site.parent_site = self._path(name, (node - 1) // site.n_experts)
                site.parent_expert = (node - 1) % site.n_experts
            yield site

    @staticmethod
    def _path(name: str, node: int) -> str:
        return f"{name}.gates.node{node}".lstrip(".")

    def part(self, site: Site, output: Any) -> Tensor:
        """(N, branches) of one node."""
        return output[:, site.rule["node"]].exp()

    def given(self, site: Site, output: Any, weights: Tensor) -> Any:
        """The other nodes as they were; logarithms of 0 are -inf."""
        own = output[:, site.rule["node"]]
        new = output.clone()
        new[:, site.rule["node"]] = torch.where(weights.to(own.dtype) == own.exp(), own, weights.to(own.dtype).log())
        return new

    def whole(self, site: Site, output: Any, args: tuple[Any, ...]) -> Tensor:
        """Σ over leaves of the product of gates on the path, times the leaf's class probabilities."""
        block: Any = site.block
        count, weights, start = site.n_experts, output.new_ones(len(output), 1), 0
        for level in range(block.depth):
            gates = output[:, start : start + count**level].exp()
            weights, start = (weights[..., None] * gates).flatten(1), start + count**level
        made: Tensor = block.experts.forward(args[0]).softmax(-1)
        return (weights[..., None] * made).sum(1)


class Dense(Contract):
    """Whichever of these a module is."""

    name = "dense"

    def __init__(self) -> None:
        self._forms = Weighed(), Emotions(), Bank()

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """Sites of the form that knows the module."""
        for form in self._forms:
            yield from form.find(name, module)


def dense(experts: Tensor, weights: Tensor, count: int) -> Tensor:
    """(T, E) the weight of every expert, 0 where none is given."""
    slot = torch.where(experts >= 0, experts, count).long()
    return weights.new_zeros(len(slot), count + 1).scatter_add(1, slot, weights)[:, :count]


def _gate(site: Site) -> str:
    return site.place.rpartition(".")[2]


contract = Dense()
