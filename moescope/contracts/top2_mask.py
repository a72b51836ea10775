"""Routers that return a first-choice mask and the weights of two experts: `(mask (T, E), weights (T, E), logits)`, as NLLB-MoE.

Transformers 5 reads the mask, which is already one-hot, as expert numbers: a token runs expert 1 with the weight of its first
choice and expert 0 with that of its second, whatever those are. What is executed is recorded as such, what the router decided
goes beside it, and the run says so. Which of the two a layer does is seen by running it on one token (`misreads`), so that a
release without the fault is recorded by the same contract.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..routers.base import Contract, Edit, Emit, Record, Site, named, renamed
from ..routers.calls import bare
from ..routers.reading.experts_call import child_router, expert_count
from ..routers.reading.router_output import RouterOutput, same
from ..weights import home, precision, weights

WARNING = (
    "executes experts 0 and 1 whatever the router decides (the layer reads a one-hot mask as expert numbers; Transformers 5.0 "
    "to at least 5.23); stored is what it executed, and the router's decision beside it"
)


class Top2Mask(Contract):
    """NLLB-MoE: top-2 with capacity over all tokens of a batch."""

    name = "top2_mask"
    capacity = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each sparse layer."""
        router, experts = child_router(module), getattr(module, "experts", None)
        if type(router).__name__ == "NllbMoeTop2Router" and isinstance(experts, nn.Module):
            scale = 1 - float(getattr(experts, "moe_token_dropout", 0.0))
            warning = ""
            if misreads(experts, next(w for _, w in weights(bare(router.classifier)) if w.dim() == 2)):  # type: ignore[union-attr, arg-type]
                warning = WARNING
            count = expert_count(router, experts)  # type: ignore[arg-type]
            yield Site(
                name,
                module,
                router,
                experts,
                self,
                count,
                output_scale=scale,
                executes_decision=not warning,
                warning=warning,
                score="softmax",
            )

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """Logits at the router, mask and weights where they enter the experts."""
        assert site.router is not None
        assert site.experts is not None
        word = RouterOutput(site.router, lambda output: output[:2])

        def at_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], __: Any) -> None:
            _, mask, weights = named(args, kwargs, 3)
            said, altered = word.take()
            misread = not site.executes_decision
            untouched = said is not None and not altered and same(said[0], mask) and same(said[1], weights)
            as_given = execution if untouched else numbered
            executed = as_given(mask, weights) if misread else decision(mask, weights)
            own = None if said is None or altered or (untouched and not misread) else decision(*said[:2])
            emit(Record(site, *executed, None if said is None else said[2], own, altered=altered))

        return [word.handle, hooks.after(site.experts, at_experts, kwargs=True, first=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Replace mask and weights; where the layer reads the mask as numbers, any expert can be named in it."""

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, mask, weights = named(args, kwargs, 3)
            misread = not site.executes_decision
            was = numbered(mask, weights) if misread else decision(mask, weights)
            experts, given = edit(*was)
            moved = (spread(experts, given, site.n_experts) != spread(*was, site.n_experts)).any(-1, keepdim=True)
            if not moved.any():  # rows in another order would be rounded otherwise
                return None
            write = as_numbers if misread else as_mask
            new = write(experts, given, mask, weights)
            return renamed(args, kwargs, (hidden, *(torch.where(moved, a, b) for a, b in zip(new, (mask, weights)))))

        assert site.experts is not None
        return [hooks.before(site.experts, before, kwargs=True, first=True)]

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """See the experts' inputs and output."""
        assert site.experts is not None

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            keep(named(args, kwargs, 3), output)

        return [hooks.after(site.experts, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each expert on the tokens that ran it, times weight and the factor for dropped outputs."""
        experts: Any = site.experts
        hidden = inputs[0]
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for number in record.experts[record.experts >= 0].unique().tolist():
            token, slot = (record.experts == number).nonzero(as_tuple=True)
            made = experts[f"expert_{number}"].forward(hidden[token]) * record.weights[token, slot, None]
            total.index_add_(0, token, made.float())
        return total * site.output_scale


def decision(mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(T, 2) first and second expert as the router chose them, -1 for padding and for what had no room."""
    first = torch.where(mask.any(-1), mask.argmax(-1), -1)
    rest = weights.masked_fill(mask.bool(), 0)
    second = torch.where(rest.any(-1), rest.argmax(-1), -1)
    experts = torch.stack((first, second), -1)
    return experts, weights.gather(-1, experts.clamp(min=0)).masked_fill(experts < 0, 0)


def execution(mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(T, 2) what a layer runs that takes the mask's values for expert numbers: 1 for the first choice, 0 for the rest."""
    given = torch.stack(((weights * mask).sum(-1), weights.masked_fill(mask.bool(), 0).sum(-1)), -1)
    numbers = torch.tensor([1, 0], device=mask.device).expand_as(given)
    return torch.where(given > 0, numbers, -1), given


def numbered(mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(T, k) what such a layer runs for any mask, as somebody's hook may have left it: its values are expert numbers."""
    dense = torch.zeros_like(weights).scatter_add(-1, mask.long(), weights)
    k = max(2, int((dense != 0).sum(-1).max()))
    given, experts = dense.topk(k, dim=-1)
    return experts.masked_fill(given == 0, -1), given


def spread(experts: Tensor, given: Tensor, n_experts: int) -> Tensor:
    """(T, E) the weight that each expert has, whatever the order they are named in."""
    dense = given.new_zeros((*given.shape[:-1], n_experts))
    return dense.scatter_add(-1, experts.clamp(min=0).long(), given.masked_fill(experts < 0, 0))


def as_numbers(experts: Tensor, given: Tensor, mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mask as expert numbers and their weights in the first two columns, weight 0 elsewhere."""
    mask, weights = torch.zeros_like(mask), torch.zeros_like(weights)
    mask[:, :2] = experts.clamp(min=0).to(mask.dtype)
    weights[:, :2] = given.masked_fill(experts < 0, 0).to(weights.dtype)
    return mask, weights


def as_mask(experts: Tensor, given: Tensor, mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The one-hot mask of the first expert, and each expert's weight in its own column."""
    places, empty = experts.clamp(min=0).long(), experts < 0
    dense = torch.zeros_like(weights).scatter_add(-1, places, given.masked_fill(empty, 0).to(weights.dtype))
    first = torch.zeros_like(mask).scatter(-1, places[:, :1], (~empty[:, :1]).to(mask.dtype))
    return first, dense


@torch.no_grad()
def misreads(experts: nn.Module, like: Tensor) -> bool:
    """Whether a layer runs anything but expert 0 for one token whose mask and weight are on expert 0 alone."""
    ran: list[str] = []
    hooks = [m.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, m in experts.named_children()]
    training = [m for m in experts.modules() if m.training]
    try:
        experts.eval()
        device, dtype = home(experts), precision(experts)
        one = torch.zeros(1, like.shape[0], device=device)
        one[0, 0] = 1
        experts.forward(torch.zeros(1, like.shape[1], device=device, dtype=dtype), one.long(), one.to(dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return "expert_1" in ran


contract = Top2Mask()
