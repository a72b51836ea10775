"""Proof before trust: what would be stored is what the layers executed, shown on a few tokens before a trace begins.

For every router: it fired; its experts exist and are distinct; its weights are finite; the experts' output, recomputed expert
by expert from the record as it would be stored, equals the real one; writing the record back leaves the model's output
bit-identical; zero weights change it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import routing
from ..contracts import Call, Edit, Site
from ..contracts._scores import guess_score
from ..errors import InputError, MoescopeError, ProofFailed
from .causes import cause

Run = Callable[[], Any]
_TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10, torch.bfloat16: 3e-2, torch.float16: 4e-3}


@dataclass(frozen=True)
class Proved:
    """What was shown of one router; `error` is the largest difference of the recomputed output, relative to its largest."""

    router: str
    contract: str
    rows: int
    error: float
    identical: bool  # writing the record back left the output bit-identical
    note: str = ""


@contextmanager
def observed(sites: list[Site]) -> Iterator[dict[str, list[Call]]]:
    """Collect what every site does while the block runs: {site name: its calls}, in the order in which they first fired."""
    calls: dict[str, list[Call]] = {site.name: [] for site in sites}
    handles = []
    for site in sites:
        records: list[Any] = []

        def keep(inputs: tuple[Any, ...], output: Tensor, site: Site = site, records: list[Any] = records) -> None:
            if records:
                if not calls[site.name]:
                    calls[site.name] = calls.pop(site.name)
                calls[site.name].append(Call(records.pop(), inputs, output.detach()))

        handles += site.contract.listen(site, records.append) + site.contract.watch(site, keep)
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def edited(sites: list[Site], edit: Callable[[Site, int], Edit]) -> Iterator[None]:
    """Execute `edit(site, call number)(experts, weights)` instead of what the sites decide."""
    handles = []
    for site in sites:
        handles += site.contract.edit(site, _numbered(site, edit))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _numbered(site: Site, edit: Callable[[Site, int], Edit]) -> Edit:
    numbers = count()
    return lambda experts, weights: edit(site, next(numbers))(experts, weights)


def prove(model: nn.Module, sites: list[Site], inputs: Mapping[str, Any]) -> list[Proved]:
    """Prove every site on one forward pass of `model(**inputs)`; learns each site's top_k and score on the way.

    `sites` are put into the order in which they fired: a module may be registered before one that runs before it.

    Raises ProofFailed, naming the module, when a router never fires or its record does not give the layer's output, and
    InputError when the model cannot run on `inputs`.
    """
    with quiet(model):

        def run() -> list[Tensor]:
            return tensors(model(**inputs))

        reference = _first(model, run)
        steady = _same(reference, run())
        with observed(sites) as calls:
            listened = run()
        if steady and not _same(reference, listened):
            raise ProofFailed(f"{type(model).__name__} gives another output when it is listened to; nothing is traced")
        errors = {site.name: _local(site, calls[site.name]) for site in sites}
        identical = _written_back(sites, calls, run, reference) if steady else dict.fromkeys(errors, False)
        _changes(sites, calls)
    order = {name: place for place, name in enumerate(calls)}
    sites.sort(key=lambda site: order[site.name])
    note = "" if steady else "the model is not deterministic: identity after writing back could not be shown"
    return [
        Proved(s.path, s.contract.name, len(calls[s.name][0].record.experts), errors[s.name], identical[s.name], note)
        for s in sites
        if calls[s.name]
    ]


def _first(model: nn.Module, run: Run) -> list[Tensor]:
    try:
        return run()
    except MoescopeError:
        raise
    except Exception as failure:
        said = (str(failure).splitlines() or [""])[0]
        raise InputError(
            f"{type(model).__name__} cannot run on the inputs of its proof ({type(failure).__name__}: {said}); give some that "
            "it takes: Tracer(model, store, inputs={...})"
        ) from failure


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and the random state left as it was."""
    training = [m for m in model.modules() if m.training]
    state = torch.get_rng_state()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_rng_state(state)
        for module in training:
            module.training = True


def stored(call: Call) -> tuple[Tensor, Tensor]:
    """(experts, weights) of a call after the way to the store and back: ranked, packed, unpacked."""
    record = call.record
    experts, weights = record.experts[None].cpu().numpy(), record.weights[None].float().cpu().numpy()
    order = routing.ranked(experts, weights)
    if order is None:
        return record.experts, record.weights.float().to(record.weights.dtype)
    slots = routing.unpack_slots(np.asarray(routing.pack_slots(order, experts.shape[-1])), experts.shape[-1])
    back = [np.zeros_like(a) for a in (experts, weights)]
    for there, here in zip(back, (experts, weights)):
        np.put_along_axis(there, slots, np.take_along_axis(here, order, -1), -1)
    device = record.experts.device
    return (
        torch.from_numpy(back[0][0]).to(device),
        torch.from_numpy(back[1][0]).to(device, record.weights.dtype),
    )


def _local(site: Site, calls: list[Call]) -> float:
    """Checks of one site's own calls; gives the largest relative error of the recomputed output."""
    if not calls:
        raise ProofFailed(
            f"router {site.path} ({site.contract.name}) never handed a decision to experts that ran: a kernel or a quantized "
            "form bypasses it, or the test input does not reach it; load the model with plain experts (experts_implementation="
            "'eager') or give inputs that reach it"
        )
    worst = 0.0
    for call in calls:
        record = call.record
        site.top_k = record.experts.shape[-1]
        if record.logits is not None and site.score is None:
            site.score = guess_score(record.logits, record.experts, record.weights)
        _check_record(site, record)
        worst = max(worst, _recomputed(site, call))
    return worst


def _check_record(site: Site, record: Any) -> None:
    experts, weights = record.experts, record.weights
    limit = site.n_experts + site.extra.get("special_experts", 0)
    if bool((experts >= limit).any() | (experts < -1).any()):
        raise ProofFailed(f"router {site.path} chose expert {int(experts.max())}, but it has {site.n_experts}")
    ordered = experts.sort(-1).values
    repeated = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    if site.kind != "soft" and bool(repeated.any()):
        site.extra["repeats"] = True  # a table that names one expert twice; both are executed
    if record.logits is not None and bool(record.logits.isfinite().all()) and not bool(weights.isfinite().all()):
        raise ProofFailed(f"router {site.path} gave a weight that is not finite")


def _recomputed(site: Site, call: Call) -> float:
    experts, weights = stored(call)
    record = type(call.record)(**{**call.record.__dict__, "experts": experts, "weights": weights})
    try:
        ours = site.contract.recompute(site, call.inputs, record).float()
    except MoescopeError:
        raise
    except Exception as failure:
        said = f"the output of {site.name} could not be recomputed from its record: {failure}{cause(site, '')}"
        raise ProofFailed(said) from failure
    theirs = call.output.float().reshape(ours.shape)
    scale = float(theirs.abs().max()) or 1.0
    error = float((ours - theirs).abs().max()) / scale
    if not error <= _TOLERANCE.get(call.output.dtype, 1e-3):
        raise ProofFailed(
            f"the output of {site.name} does not follow from what would be stored (largest difference {error:.1e} of its "
            f"largest value){cause(site, f': contract {site.contract.name!r} does not describe this layer')}; nothing is traced"
        )
    return error


def _written_back(sites: list[Site], calls: dict[str, list[Call]], run: Run, reference: list[Tensor]) -> dict[str, bool]:
    def write(site: Site, number: int) -> Edit:
        experts, weights = stored(calls[site.name][number])
        dropped = calls[site.name][number].record.dropped
        if dropped is not None and site.kind == "token_choice" and site.contract.name == "capacity_mask":
            experts = experts.masked_fill(dropped, -1)
        return lambda e, w: (experts.to(e.dtype).reshape(e.shape), weights.to(w.dtype).reshape(w.shape))

    with edited(sites, write):
        same = _same(run(), reference)
    if not same:
        raise ProofFailed(
            f"writing the recorded decisions back changes the output of the model (routers {sites[0].path} …): the record "
            "is not what was executed; nothing is traced"
        )
    return dict.fromkeys((s.name for s in sites), True)


def _changes(sites: list[Site], calls: dict[str, list[Call]]) -> None:
    """Zero weights must change what the experts give: else the hook sits beside the computation."""
    for site in sites:
        call = calls[site.name][0]
        nothing = type(call.record)(**{**call.record.__dict__, "weights": torch.zeros_like(call.record.weights)})
        if bool((call.record.weights != 0).any()) and _same(
            [site.contract.recompute(site, call.inputs, nothing).float()], [call.output.float()]
        ):
            raise ProofFailed(f"zero weights at {site.path} change nothing: the record does not reach the computation")


def tensors(output: Any) -> list[Tensor]:
    """All floating tensors of a model's output, in order."""
    if torch.is_tensor(output):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [t for value in output.values() for t in tensors(value)]
    if isinstance(output, list | tuple):
        return [t for value in output for t in tensors(value)]
    return [t for value in vars(output).values() for t in tensors(value)] if hasattr(output, "__dict__") else []


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) or bool((a.isnan() == b.isnan()).all() and torch.equal(
        a.nan_to_num(), b.nan_to_num())) for a, b in zip(left, right))  # fmt: skip
