"""The other half of writing back: another decision is written, and the layer must execute that one.

Writing the same decision back proves nothing of a contract whose edit does nothing. So every router is made to decide
otherwise, and what its layer gives must follow from what was written.
"""

import torch
from torch import Tensor

from ..contracts import Call, Edit, Site
from ..errors import ProofFailed
from .checks import recomputed
from .watching import Run, edited, observed

Decision = tuple[Tensor, Tensor]


def follows(sites: list[Site], calls: dict[str, list[Call]], run: Run) -> None:
    """Forwards in which every site executes another decision. ProofFailed where a layer does not, naming the module.

    One forward for all sites, and another for those inside the blocks of others: what an outer block gives is recomputed by
    running what lies inside it, which then must decide as it does on its own.
    """
    for some in _levels(sites):
        _follow(some, calls, run)


def _levels(sites: list[Site]) -> list[list[Site]]:
    """The sites inside no other's block, those inside one, ..."""
    inside = [{id(m) for m in site.block.modules()} - {id(site.block)} for site in sites]
    depth = [sum(id(site.block) in modules for modules in inside) for site in sites]
    return [[site for site, own in zip(sites, depth) if own == level] for level in sorted(set(depth))]


def _follow(sites: list[Site], calls: dict[str, list[Call]], run: Run) -> None:
    wrote: dict[str, list[Decision]] = {site.name: [] for site in sites}

    def write(site: Site, number: int) -> Edit:
        def other(experts: Tensor, weights: Tensor) -> Decision:
            wrote[site.name].append(another(site, experts, weights))
            return wrote[site.name][-1]

        return other

    with edited(sites, write, last=True), observed(sites) as seen:
        run()
    for site in sites:
        if calls[site.name] and site.executes_decision:
            _check(site, wrote[site.name], seen[site.name])


def another(site: Site, experts: Tensor, weights: Tensor) -> Decision:
    """A decision that differs from this one everywhere and can be executed as well: the next expert, or half the weight."""
    routed = (experts >= 0) & (experts < site.n_experts)
    if site.kind in ("token_choice", "hash", "static") and site.n_experts > 1 and not site.roles:
        return experts.where(~routed, (experts + 1) % site.n_experts), weights
    return experts, weights * 0.5


def _check(site: Site, wrote: list[Decision], seen: list[Call]) -> None:
    if not wrote:
        raise ProofFailed(
            f"contract {site.contract.name!r} writes nothing at {site.path}: its edit is never called, so that writing the "
            "record back proves nothing; nothing is traced"
        )
    for (experts, weights), call in zip(wrote, seen):
        if not _reported(experts, weights, call):
            raise ProofFailed(
                f"another decision written at {site.path} is not what contract {site.contract.name!r} then reads: what "
                "it edits is not what it listens to; nothing is traced"
            )
        recomputed(site, call, "does not follow from another decision that was written there")


def _reported(experts: Tensor, weights: Tensor, call: Call) -> bool:
    """Whether a record says what was written, of everything that ran; places may be in another order, and experts dropped."""
    record = call.record
    if record.experts.shape != experts.shape:
        return False
    width = int(max(experts.max(), record.experts.max())) + 1
    ran = record.weights if record.dropped is None else record.weights.masked_fill(record.dropped, 0)
    wrote, read = (_by_expert(e, w, width) for e, w in ((experts, weights), (record.experts, ran)))
    near = (wrote - read).abs() <= 1e-2 * wrote.abs() + 1e-6
    return bool((near | (read == 0)).all())


def _by_expert(experts: Tensor, weights: Tensor, width: int) -> Tensor:
    """(T, width) float32 weight of every expert."""
    total = torch.zeros(len(experts), max(width, 1), dtype=torch.float32, device=experts.device)
    return total.scatter_add_(1, experts.clamp(min=0).long(), weights.float().masked_fill(experts < 0, 0)).nan_to_num()
