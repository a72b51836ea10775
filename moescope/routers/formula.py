"""How routers come from logits to experts and weights, read off what they did: for a table that a person reads.

Nothing is taken from a family's name. The score is the one that the weights are proportional to; selection is tried as top-k of
the score, of score plus correction bias, of logit plus bias, and must hold in every layer; weights are normalized if their sum
is the same for every token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Record, Site
from .scores import raw_scores

_SAME = 5e-3  # relative spread below which a number counts as constant
_RULES = (" by score + bias", " by logit + bias", "")


def formula(routers: Sequence[tuple[Site, Sequence[Record]]]) -> str:
    """One line for routers of one kind, e.g. 'sigmoid, top-4 of 16 by score + bias in 2 of 4 groups, sum 2.5'."""
    site = routers[0][0]
    numbers = "/".join(str(n) for n in sorted({s.n_experts for s, _ in routers}))
    if site.kind == "static":
        return f"an argument names one of {numbers}, weight 1"
    read = [(s, *found) for s, records in routers if (found := _read(s, records)) is not None]
    said = [site.score or "own score", f"top-{site.top_k} of {numbers}{_beside(site)}" + _selection(site, read)]
    said += [text for text in (_weighing(*r) for r in read[:1]) if text]
    if (scale := site.rule.get("scale")) and scale["on"] == "output":
        said.append(f"×{scale['value']:g} after the experts")
    said += ["on the input"] * (site.weight_on == "input") + ["with capacity"] * site.contract.capacity
    return ", ".join(said)


def _beside(site: Site) -> str:
    """What can be chosen beside routed experts: ' + 4 identity'."""
    roles = list(site.roles.values())
    return "".join(f" + {roles.count(role)} {role}" for role in dict.fromkeys(roles))


def _read(site: Site, records: Sequence[Record]) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """(logits, scores, experts, weights) of decisions in which only routed experts took part; None if there are none."""
    logits = [r.logits for r in records if r.logits is not None]
    if not logits or site.score is None:
        return None
    pairs = [r.decided or (r.experts, r.weights) for r in records]
    experts, weights = torch.cat([e for e, _ in pairs]).long(), torch.cat([w for _, w in pairs]).double()
    dropped = torch.cat(
        [r.dropped if r.dropped is not None else torch.zeros_like(r.experts, dtype=torch.bool) for r in records]
    )
    seen = torch.cat(logits).double()
    usable = ((experts >= 0) & (experts < site.n_experts) & (weights > 0)).all(-1) & seen.isfinite().all(-1) & ~dropped.any(-1)
    seen, experts, weights = seen[usable], experts[usable], weights[usable]
    return (seen, raw_scores(seen, site.score), experts, weights) if len(seen) else None


def _selection(site: Site, read: Sequence[tuple[Site, Tensor, Tensor, Tensor, Tensor]]) -> str:
    """How the experts were chosen from the scores, in every layer alike."""
    if site.kind == "hash":
        return " by a table over token ids"
    if "sparsemixer" in site.rule:
        return " one after the other"
    if "groups" in site.rule:
        by = " by score + bias" if "bias" in site.rule else ""
        return f"{by} in {site.rule['groups_kept']} of {site.rule['groups']} groups"
    holding = [{rule for rule in _RULES if _holds(rule, *r)} for r in read]
    return next((rule for rule in _RULES if all(rule in held for held in holding)), " by its own rule")


def _holds(rule: str, site: Site, logits: Tensor, scores: Tensor, experts: Tensor, _: Tensor) -> bool:
    values = site.rule.get("bias", {}).get("values", [])
    if rule and len(values) != scores.shape[-1]:
        return False
    by = logits if rule == _RULES[1] else scores
    by = by + torch.tensor(values, dtype=by.dtype, device=by.device) if rule else by
    return torch.equal(by.topk(experts.shape[-1], dim=-1).indices.sort(-1).values, experts.sort(-1).values)


def _weighing(site: Site, _: Tensor, scores: Tensor, experts: Tensor, weights: Tensor) -> str:
    """What the weights are beside the scores of the chosen experts."""
    chosen = scores.gather(-1, experts)
    if "sparsemixer" in site.rule:
        return "each a softmax over the logits near it"
    if experts.shape[-1] > 1 and _constant(total := weights.sum(-1)):
        return f"sum {float(total.mean()):.3g}"
    if _constant(ratio := weights / chosen):
        factor = float(ratio.mean())
        return "not normalized" if abs(factor - 1) < _SAME else f"not normalized, ×{factor:.3g}"
    share = weights / (chosen / chosen.sum(-1, keepdim=True))
    if all(_constant(share[experts == e]) for e in experts.unique()):
        return "sum 1 × a scale of each expert"
    return "normalized jointly with the shared experts" if site.shared else "normalized by its own rule"


def _constant(values: Tensor) -> bool:
    return float((values.amax() - values.amin()) / values.abs().amax()) < _SAME
