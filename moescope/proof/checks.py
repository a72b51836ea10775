"""What a proof looks at in one call of a router: the record is possible, and the layer's output follows from it alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import decisions
from ..contracts import Call, Site
from ..errors import MoescopeError, ProofFailed
from ..foreign import out_of_memory
from ..routers.scores import guess_score
from .causes import cause
from .tolerance import allowed


def stored(call: Call) -> tuple[Tensor, Tensor]:
    """(experts, weights) of a call after the way to the store and back: ranked, packed, unpacked."""
    record = call.record
    experts, weights = record.experts[None].cpu().numpy(), record.weights[None].float().cpu().numpy()
    order = decisions.ranked(experts, weights)
    if order is None:
        return record.experts, record.weights.float().to(record.weights.dtype)
    slots = decisions.unpack_slots(np.asarray(decisions.pack_slots(order, experts.shape[-1])), experts.shape[-1])
    back = [np.zeros_like(a) for a in (experts, weights)]
    for there, here in zip(back, (experts, weights)):
        np.put_along_axis(there, slots, np.take_along_axis(here, order, -1), -1)
    device = record.experts.device
    return (
        torch.from_numpy(back[0][0]).to(device),
        torch.from_numpy(back[1][0]).to(device, record.weights.dtype),
    )


def check_calls(site: Site, calls: list[Call]) -> float:
    """Checks of one site's own calls; gives the largest relative error of the recomputed output."""
    if not calls:
        raise ProofFailed(
            f"router {site.path} ({site.contract.name}) never handed a decision to experts that ran: a kernel or a quantized "
            "form bypasses it, or the test input does not reach it; load the model without kernels of their own (experts_"
            "implementation='eager', use_kernels=False, of MXFP4 Mxfp4Config(dequantize=True)) or give inputs that reach it"
        )
    worst = 0.0
    for call in calls:
        record = call.record
        site.top_k = record.experts.shape[-1]
        if record.logits is not None and site.score is None:
            site.score = guess_score(record.logits, record.experts, record.weights)
        _check_record(site, record)
        worst = max(worst, recomputed(site, call, "does not follow from what would be stored"))
    return worst


def _check_record(site: Site, record: Any) -> None:
    experts, weights = record.experts, record.weights
    limit = site.n_experts + site.special_experts
    if bool((experts >= limit).any() | (experts < -1).any()):
        raise ProofFailed(f"router {site.path} chose expert {int(experts.max())}, but it has {site.n_experts}")
    ordered = experts.sort(-1).values
    repeated = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    if site.kind != "soft" and bool(repeated.any()):
        site.repeats = True  # a table that names one expert twice; both are executed
    if record.logits is not None and bool(record.logits.isfinite().all()) and not bool(weights.isfinite().all()):
        raise ProofFailed(f"router {site.path} gave a weight that is not finite")


def recomputed(site: Site, call: Call, otherwise: str) -> float:
    """The relative error of a call's output, recomputed from its record. ProofFailed, saying `otherwise`, if rounding does not
    explain it."""
    experts, weights = stored(call)
    try:
        ours = _instead(site, call, experts=experts, weights=weights)
    except MoescopeError:
        raise
    except Exception as failure:
        if out_of_memory(failure):
            raise
        said = f"the output of {site.name} could not be recomputed from its record: {failure}{cause(site, '')}"
        raise ProofFailed(said) from failure
    difference = float((ours - call.output.float()).abs().max())
    error = difference / (float(call.output.float().abs().max()) or 1.0)
    if not difference <= allowed(call):
        raise ProofFailed(
            f"the output of {site.name} {otherwise} (largest difference {error:.1e} of its "
            f"largest value){cause(site, f': contract {site.contract.name!r} does not describe this layer')}; nothing is traced"
        )
    return error


def shows(sites: list[Site], calls: dict[str, list[Call]]) -> dict[str, str]:
    """Zero weights must change what the experts give: else the hook sits beside the computation. Gives a sentence for sites
    whose outputs cannot show which expert ran: those that give nothing (yet), and experts that are all alike."""
    notes = {}
    for site in sites:
        call = calls[site.name][0]
        record = call.record
        nothing = _instead(site, call, weights=torch.zeros_like(record.weights))
        if not bool(call.output.any()):
            notes[site.name] = "the layer gives nothing but zeros on the proof's tokens, so that it shows no expert at work"
        elif bool((record.weights != 0).any()) and equal([nothing], [call.output.float()]):
            raise ProofFailed(f"zero weights at {site.path} change nothing: the record does not reach the computation")
        elif site.kind == "token_choice" and site.n_experts > 1:
            moved = torch.where(record.experts < 0, record.experts, (record.experts + 1) % site.n_experts)
            difference = float((_instead(site, call, experts=moved) - call.output.float()).abs().max())
            if difference <= allowed(call):
                notes[site.name] = "other experts would have given the same output on the proof's tokens"
    return notes


def _instead(site: Site, call: Call, **changes: Tensor) -> Tensor:
    """The output that follows from a call's record with something else in it, in the real output's shape."""
    record = type(call.record)(**{**call.record.__dict__, **changes})
    return site.contract.recompute(site, call.inputs, record).float().reshape(call.output.shape)


def tensors(output: Any) -> list[Tensor]:
    """All floating tensors of a model's output, in order."""
    if torch.is_tensor(output):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [t for value in output.values() for t in tensors(value)]
    if isinstance(output, list | tuple):
        return [t for value in output for t in tensors(value)]
    return [t for value in vars(output).values() for t in tensors(value)] if hasattr(output, "__dict__") else []


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    """Whether two outputs are the same bit for bit, NaN in the same places."""
    return len(left) == len(right) and all(torch.equal(a, b) or bool((a.isnan() == b.isnan()).all() and torch.equal(
        a.nan_to_num(), b.nan_to_num())) for a, b in zip(left, right))  # fmt: skip
