"""Product keys without a router module (Doge): two small sets of keys, every pair of keys is an expert of one neuron.

`router_gate` gives (..., 2 √E); an expert's logit is the sum of its two keys'. Doge reads that output as (2, T, √E), which
mixes the keys of different tokens; the same view is taken here, because that is what runs. Experts are read where their rows
are looked up (`down_embed`); weights follow from the logits, and are replaced as a factor on what `up_embed` gives.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Edit, Emit, Record, Site
from ..routers.reading.stash import Stash, ratio, stashed

_NEEDS = ("router_gate", "down_embed", "up_embed", "num_keys", "top_k")


class ProductKeys(Contract):
    """Doge's cross-domain mixture: a dense feed-forward and k looked-up neurons beside it."""

    name = "product_keys"
    product_keys = True
    constant_output = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for a block with a gate over keys and two embeddings of experts."""
        if all(hasattr(module, need) for need in _NEEDS):
            block: Any = module
            yield Site(name, module, block.router_gate, None, self, block.num_keys**2, rule={"keys": block.num_keys}, shared=1)

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Logits at the gate, experts at the lookup, weights from both once the lookups are done."""
        block: Any = site.block
        seen: dict[str, Tensor] = {}

        def at_gate(_: nn.Module, __: Any, output: Tensor) -> None:
            seen["logits"] = logits_of(block, output)

        def at_lookup(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
            seen["experts"] = args[0]

        def at_end(_: nn.Module, __: Any, ___: Any) -> None:
            weights = weights_of(block, seen["logits"])
            factor = stashed(site.block)
            emit(Record(site, seen["experts"], weights if factor is None else weights * factor, seen["logits"]))

        return [
            hooks.after(block.router_gate, at_gate, last=True),
            hooks.after(block.down_embed, at_lookup),
            hooks.after(block.up_embed, at_end),
        ]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Look other rows up, and scale them by new weight over old; an empty place looks row 0 up with weight 0."""
        block: Any = site.block
        seen: dict[str, Tensor] = {}
        stash = Stash(site.block)

        def at_gate(_: nn.Module, __: Any, output: Tensor) -> None:
            seen["weights"] = weights_of(block, logits_of(block, output))
            stash.put(torch.ones_like(seen["weights"]))

        def at_down(_: nn.Module, args: tuple[Any, ...]) -> Any:
            was = seen["weights"] * stash.get()
            experts, weights = edit(args[0], was)
            seen["experts"] = experts.clamp(min=0)
            seen["factor"] = ratio(weights.masked_fill(experts < 0, 0), was)
            stash.put(stash.get() * seen["factor"])
            return (seen["experts"], *args[1:])

        def at_up(_: nn.Module, args: tuple[Any, ...]) -> Any:
            return (seen["experts"], *args[1:])

        def scaled(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            return output * seen["factor"][..., None].to(output.dtype)

        return [
            hooks.after(block.router_gate, at_gate, first=True),
            hooks.before(block.down_embed, at_down, first=True),
            hooks.before(block.up_embed, at_up, first=True),
            hooks.after(block.up_embed, scaled, first=True),
            stash,
        ]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """The block's tokens and its output, the dense part included."""

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            keep((args[0],), output[0].reshape(-1, output[0].shape[-1]))

        return [hooks.after(site.block, after, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Dense part, and for each chosen expert act(down · x) × weight × up."""
        block: Any = site.block
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        gated = block.act_fn(block.gate_proj.forward(hidden)) * block.up_proj.forward(hidden)
        total = block.down_proj.forward(gated).float()
        for slot in range(record.experts.shape[-1]):
            rows = record.experts[:, slot].clamp(min=0).long()
            strength = block.act_fn((block.down_embed.weight[rows] * hidden).sum(-1))
            weight = record.weights[:, slot].masked_fill(record.experts[:, slot] < 0, 0)
            total += ((strength * weight)[:, None] * block.up_embed.weight[rows]).float()
        return total


def logits_of(block: Any, output: Tensor) -> Tensor:
    """(T, √E²) logit of every expert from the gate's output, by the layer's own view of it."""
    x, y = output.view(2, output.numel() // (2 * block.num_keys), -1)
    return (x[:, :, None] + y[:, None, :]).flatten(1)


def weights_of(block: Any, logits: Tensor) -> Tensor:
    """(T, k) weights by size: softmax of the k largest logits, as the layer does it."""
    weights = torch.softmax(logits.topk(block.top_k, dim=-1).values, dim=-1)
    return weights / weights.sum(-1, keepdim=True) if block.norm_topk_prob else weights


contract = ProductKeys()
