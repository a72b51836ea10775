"""Routers that return a dense matrix of scores which scale what the experts read (Llama 4): `(scores (T, E), logits (T, E))`.

`experts` gets every token once for each expert, expert after expert, times its score; the score of an expert that was not
chosen is sigmoid(-inf) = 0. So the weight is on the input, and the decision is read and replaced in the router's output.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Edit, Emit, Record, Site, named
from ..routers.calls import bare
from ..routers.reading.experts_call import child_router, expert_count, parameters
from ..routers.reading.router_output import RouterOutput, same


class DenseScores(Contract):
    """Llama 4: top-k of the logits, sigmoid of those."""

    name = "dense_scores"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site where a router stands beside experts that take one tensor."""
        router, experts = child_router(module), getattr(module, "experts", None)
        linear = isinstance(router, nn.Module) and isinstance(bare(router), nn.Linear) and hasattr(bare(router), "top_k")
        if router is not None and linear and isinstance(experts, nn.Module) and len(parameters(experts)) == 1:
            yield Site(name, module, router, experts, self, expert_count(bare(router), bare(experts)), weight_on="input")

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Read the scores as they leave the router, behind every other hook on its output."""
        assert site.router is not None
        word = RouterOutput(site.router, lambda output: output[:1])

        def at_end(_: nn.Module, __: Any, output: Any) -> None:
            said, altered = word.take()
            found = record(site, *output[:2])
            if said is not None and not (altered or same(said[0], output[0])):
                own = record(site, *said[:2])
                found.decided = own.experts, own.weights
            found.altered = altered
            emit(found)

        return [word.handle, hooks.after(site.router, at_end, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Replace the scores: the given weight at each given expert, 0 elsewhere."""

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            was = record(site, *output[:2])
            return dense(*edit(was.experts, was.weights), site.n_experts), *output[1:]

        assert site.router is not None
        return [hooks.after(site.router, after, first=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """The block's tokens (T, H), and the sum over experts of what they made of them."""
        seen: list[Tensor] = []

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = named(args, kwargs, 1)[0]
            seen[:] = [hidden.reshape(-1, hidden.shape[-1])]

        def after(_: nn.Module, __: Any, output: Tensor) -> None:
            keep((seen[0],), output.reshape(site.n_experts, *seen[0].shape).sum(0))

        assert site.experts is not None
        return [hooks.before(site.block, before, kwargs=True), hooks.after(site.experts, after)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert's output for the tokens scaled by the recorded weights, summed in float32."""
        assert site.experts is not None
        (hidden,) = inputs
        scores = dense(record.experts, record.weights, site.n_experts)
        scaled = (hidden[None] * scores.T[..., None].to(hidden.dtype)).flatten(0, 1)
        return site.experts.forward(scaled).reshape(site.n_experts, *hidden.shape).float().sum(0)


def record(site: Site, scores: Tensor, logits: Tensor) -> Record:
    """(T, k) experts by logit, as the router chose them; by score where somebody changed the scores since."""
    k = int(bare(site.router).top_k)  # type: ignore[arg-type]
    chosen = torch.topk(logits, k, dim=-1).indices
    untouched = ((scores != 0).sum(-1) == (scores.gather(-1, chosen) != 0).sum(-1))[:, None]
    largest = torch.topk(scores, k, dim=-1)
    changed = largest.indices.masked_fill(largest.values == 0, -1)
    experts = torch.where(untouched, chosen, changed)
    return Record(site, experts, scores.gather(-1, experts.clamp(min=0)).masked_fill(experts < 0, 0), logits)


def dense(experts: Tensor, weights: Tensor, count: int) -> Tensor:
    """(T, E) weights from (T, k) experts and weights."""
    empty = torch.zeros(len(experts), count, dtype=weights.dtype, device=weights.device)
    return empty.scatter_add(-1, experts.clamp(min=0).long(), weights.masked_fill(experts < 0, 0))


contract = DenseScores()
