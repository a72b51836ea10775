"""DeepSpeed-MoE and PR-MoE: gates that return `(loss, capacity, E, experts (k, T), places (k, T), weights (k, T), counts)`.

A route whose expert had no room comes back as expert -1. Which expert that was is asked of the gate itself, with room for all
and from the same random state, so that sampling (second experts, jitter) draws the same: DeepSpeed 0.19,
deepspeed/moe/sharded_moe.py, `top1gating` (random token selection), `top2gating`, `topkgating`. A pool is what one process
routes at once: the whole batch.

PR-MoE (arXiv 2201.05596) adds a dense MLP beside the experts and weighs the two by a softmax of its own; that is a
router too, with the mixture as its expert 0 and the MLP in the role `residual`. Its pyramid is experts that differ by layer.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import hooks
from ..errors import ModelError
from ..routers.base import Record, Site
from ..routers.calls import signature
from ..routers.reading.ask_again import Drawing, again, settings
from ..routers.reading.inline_softmax import decided, said
from ..routers.reading.router_call import RouterCall
from ..routers.rows.held_here import check_held


class Routes(tuple):  # type: ignore[type-arg]
    """What a gate returned, with another decision in it; `wanted`: (T, k) its experts, those that were dropped too."""

    wanted: Tensor


class CapacityRoutes(Drawing):
    """The gate of one mixture."""

    name = "capacity_routes"
    capacity = True
    sums_per_token = True

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each mixture, and one for what weighs it against a residual MLP."""
        gate: Any = getattr(module, "gate", None)
        if type(gate).__name__ == "TopKGate" and hasattr(gate, "wg") and hasattr(module, "num_local_experts"):
            if "sparse_routes" not in signature(gate).parameters:
                raise ModelError(f"{name} is of a DeepSpeed whose gates give no routes: install deepspeed>=0.19.8")
            yield self._mixture(name, module, gate)
        if getattr(module, "use_residual", False) and isinstance(getattr(module, "coefficient", None), nn.Module):
            names = {0: "mixture", 1: "mlp"}
            yield Site(
                name, module, module.coefficient, None, residual, 1, "dense", shared=0, roles={1: "residual"}, score="softmax",
                place="ffn.residual", expert_names=names,
            )  # type: ignore[arg-type]  # fmt: skip

    def _mixture(self, name: str, module: nn.Module, gate: Any) -> Site:
        factor = gate.capacity_factor if module.training else gate.eval_capacity_factor
        site = Site(
            name, module, gate, module.experts, self, gate.wg.weight.shape[0], score="softmax",
            capacity_factor=float(factor) if gate.drop_tokens else None,
        )  # type: ignore[arg-type]  # fmt: skip
        site.rule = {"min_capacity": gate.min_capacity, "drops": gate.drop_tokens}
        site.rule |= {"random_token_selection": gate.use_rts} if gate.k == 1 else {}
        site.rule |= {"second_expert_sampling": gate.top2_2nd_expert_sampling} if gate.k == 2 else {}
        return site

    def draws(self, router: Any) -> bool:
        """Noise on the gate, or a second expert that is sampled."""
        noisy = router.training and (
            router.noisy_gate_policy == "Jitter" or (router.k == 1 and router.noisy_gate_policy == "RSample")
        )
        return bool(noisy or (router.k == 2 and router.top2_2nd_expert_sampling))

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(T, k) routes; dropped ones keep the number of the expert that had no room."""
        gate: Any = site.router
        if len(output) != 7:
            raise ModelError(
                f"gate {site.path} was called alone, not by its layer, so it gave masks and no routes: call the layer"
            )
        _, capacity, _, experts, places, weights, _ = output
        experts, weights = experts.T.long(), weights.T
        wanted = output.wanted if isinstance(output, Routes) else _wanted(gate, args) if gate.drop_tokens else experts
        logits = torch.nn.functional.linear(args[0].float(), gate.wg.weight.float())
        pool = torch.zeros(len(experts), dtype=torch.long, device=experts.device)
        return Record(
            site, wanted, weights, logits, dropped=(experts < 0) & (wanted >= 0), buffer=places.T.long(), pool=pool,
            capacity=int(capacity) if gate.drop_tokens else None, pool_tokens=len(experts),
        )  # fmt: skip

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Other routes. What was dropped stays dropped unless it is moved or given a weight; a full expert has room for it."""
        was = self.read(site, args, output)
        assert was.dropped is not None
        alive = experts.masked_fill(was.dropped & (experts == was.experts) & (weights == 0), -1)
        loss, capacity, count, before, places, given, counts = output
        if not torch.equal(alive, before.T.long()):
            places, capacity = _seated(alive, site.n_experts, int(capacity))
            places = places.T.contiguous().to(before.dtype)
        routes = (alive.T.contiguous().to(before.dtype), places, weights.T.contiguous().to(given))
        made = Routes((loss, capacity, count, *routes, counts))
        made.wanted = experts
        return made

    def expert(self, site: Site, number: int, hidden: Tensor) -> Tensor:
        """One expert alone. ProofFailed where other processes have some of them."""
        held: Any = site.experts
        check_held(site, len(held.deepspeed_experts), "trace the model with ep_size=1")
        made = held.deepspeed_experts[number].forward(hidden)
        return made[0] if isinstance(made, tuple) else made


class Residual(RouterCall):
    """What weighs a mixture against a dense MLP; the mixture's output is taken as it was: its router has a proof of its own."""

    name = CapacityRoutes.name

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(T, 2): the mixture, the MLP."""
        weights = said(output).reshape(-1, output.shape[-1])
        experts = torch.arange(2, device=weights.device).expand_as(weights)
        return Record(site, experts, weights, output.detach().reshape(-1, output.shape[-1]).as_subclass(Tensor))

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Other weights of the two."""
        order = torch.arange(2, device=weights.device)
        both = (torch.where(experts[..., None] == order, weights[..., None], 0)).sum(-2)
        return decided(output, both.to(weights.dtype))

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """What went in, what the two made of it, and the sum."""
        block: Any = site.block
        made: dict[str, Tensor] = {}

        def part(name: str) -> Callable[..., None]:
            return lambda _, __, output: made.update({name: _rows(output)})

        def whole(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            keep((_rows((*args, *kwargs.values())[0]), made["mixture"], made["mlp"]), _rows(output))

        return [
            hooks.after(block.deepspeed_moe, part("mixture"), last=True),
            hooks.after(block.mlp, part("mlp"), last=True),
            hooks.after(block, whole, kwargs=True, first=True),
        ]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """w0 · mixture + w1 · MLP"""
        _, *made = inputs
        chosen = torch.stack(made, 1).gather(1, record.experts.clamp(min=0)[..., None].expand(-1, -1, made[0].shape[-1]))
        return (chosen * record.weights.masked_fill(record.experts < 0, 0)[..., None]).sum(1)


residual = Residual()
contract = CapacityRoutes()


def _rows(output: Any) -> Tensor:
    made: Tensor = output[0] if isinstance(output, tuple) else output
    return made.detach().reshape(-1, made.shape[-1]).clone()


def _wanted(gate: Any, args: tuple[Any, ...]) -> Tensor:
    """(T, k) the experts that a gate chooses where all of them have room; -1 of tokens that it was told not to route."""
    room = float(gate.wg.weight.shape[0])
    with again(gate, args[0]), settings(gate, capacity_factor=room, eval_capacity_factor=room):
        routes = gate.forward(args[0], args[1] if len(args) > 1 else None, True)
    return routes[3].T.long()  # type: ignore[no-any-return]


def _seated(experts: Tensor, count: int, capacity: int) -> tuple[Tensor, int]:
    """(T, k) places in the experts' buffers, in the order of the tokens; and the places that the fullest expert needs."""
    flat = torch.nn.functional.one_hot(experts.clamp(min=0), count) * (experts >= 0)[..., None]
    order = (flat.flatten(0, 1).cumsum(0) - 1).view_as(flat)
    return (order * flat).sum(-1), max(capacity, int(flat.sum((0, 1)).max()))
