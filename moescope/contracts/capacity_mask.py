"""Routers that return a dispatch mask after capacity: `(mask (..., E), probabilities, logits (..., E))`, as Switch does.

A zero row of the mask is a token that its expert had no room for; which expert that was, the mask no longer says, so it is
taken from the same argmax over the same probabilities that the router took, and checked against the mask wherever that speaks.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..errors import ModelError
from ..routers.base import Contract, Edit, Emit, Record, Site, named, renamed
from ..routers.reading.experts_call import expert_count
from ..routers.reading.router_output import RouterOutput, same


class CapacityMask(Contract):
    """Switch Transformers: top-1, capacity counted per sequence, padding included."""

    name = "capacity_mask"
    capacity = True
    keeps_drops = True
    sums_per_token = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each sparse layer."""
        router, experts = getattr(module, "router", None), getattr(module, "experts", None)
        if type(router).__name__ == "SwitchTransformersTop1Router" and isinstance(experts, nn.Module):
            yield Site(name, module, router, experts, self, expert_count(router, experts), score="softmax")  # type: ignore[arg-type]

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Logits (with the sequences apart) at the router, mask and weights where they enter the experts."""
        assert site.router is not None
        assert site.experts is not None
        word = RouterOutput(site.router, lambda output: output[:2])

        def at_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], __: Any) -> None:
            _, mask, weights = named(args, kwargs, 3)
            said, altered = word.take()
            found = self.record(site, mask, weights, said[2])
            if not (altered or (same(said[0], mask) and same(said[1], weights))):
                own = self.record(site, said[0].reshape(mask.shape), said[1].reshape(weights.shape), said[2])
                found.decided = own.experts, own.weights
            found.altered = altered
            emit(found)

        return [word.handle, hooks.after(site.experts, at_experts, kwargs=True, first=True)]

    def record(self, site: Site, mask: Tensor, weights: Tensor, logits: Tensor) -> Record:
        """(T, 1) experts with their place in the buffer; dropped where the mask has no expert."""
        router: Any = site.router
        if logits.shape[-1] != site.n_experts:
            raise ModelError(
                f"{site.path} returns no logits over its {site.n_experts} experts: Switch routers of Transformers before 5.18 "
                "hand out a probability in their place and apply no capacity; install transformers>=5.18 for this family"
            )
        probabilities = torch.softmax(logits, -1, dtype=router.dtype).to(router.input_dtype)
        wanted = probabilities.argmax(-1)  # (B, S)
        kept = mask.sum(-1) > 0  # (T, 1)
        experts = torch.where(kept, mask.argmax(-1), wanted.reshape(-1, 1))
        place = torch.nn.functional.one_hot(wanted, site.n_experts).cumsum(-2).gather(-1, wanted[..., None]) - 1
        batch, places = wanted.shape
        pool = torch.arange(batch, device=logits.device).repeat_interleave(places)
        capacity = getattr(router, "expert_capacity", None)
        return Record(
            site, experts, weights, logits.reshape(-1, logits.shape[-1]), dropped=~kept, buffer=place.reshape(-1, 1),
            pool=pool, capacity=capacity, pool_tokens=places,
        )  # fmt: skip

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Replace mask and weights; an expert of -1 drops the token, and what was dropped stays dropped unless moved."""

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, mask, weights = named(args, kwargs, 3)
            was = torch.where(mask.sum(-1) > 0, mask.argmax(-1), -1)
            experts, weights = edit(was, weights)
            new = torch.nn.functional.one_hot(experts.clamp(min=0).long(), site.n_experts) * (experts >= 0)[..., None]
            return renamed(args, kwargs, (hidden, new.to(mask.dtype).view_as(mask), weights))

        assert site.experts is not None
        return [hooks.before(site.experts, before, kwargs=True, first=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """See the experts' inputs and output."""
        assert site.experts is not None

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            keep(named(args, kwargs, 3), output)

        return [hooks.after(site.experts, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each token's expert on that token, times its weight; nothing for what was dropped."""
        experts: Any = site.experts
        hidden = inputs[0]
        assert record.dropped is not None
        total = torch.zeros_like(hidden)
        for number in range(site.n_experts):
            rows = ((record.experts == number) & ~record.dropped).nonzero()[:, 0]
            if len(rows):
                total[rows] = experts[f"expert_{number}"].forward(hidden[rows]) * record.weights[rows]
        return total


contract = CapacityMask()
