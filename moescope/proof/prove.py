"""Proof before trust: what would be stored is what the layers executed, shown on a few tokens before a trace begins.

For every router: it fired; its experts exist and are distinct; its weights are finite; the experts' output, recomputed expert
by expert from the record as it would be stored, equals the real one; writing the record back leaves the model's output
bit-identical; another decision is executed when it is written; a changed token moves the row that bears its name; zero weights
change the output.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import local
from typing import Any

import torch
from torch import Tensor, nn

from .. import hidden_modules
from ..contracts import Call, Edit, Site
from ..errors import InputError, MoescopeError, ProofFailed
from ..foreign import out_of_memory
from .checks import check_calls, equal, shows, stored, tensors
from .other_decision import follows
from .state import State
from .tolerance import tolerance
from .unclaimed import left_out, watched
from .watching import Run, edited, observed
from .which_token import changed, check_rows

_here = local()


@dataclass(frozen=True)
class Proved:
    """What was shown of one router; `error` is the largest difference of the recomputed output, relative to its largest, and
    `tolerance` what rounding may explain of it (tolerance.py)."""

    router: str
    contract: str
    rows: int
    error: float
    identical: bool  # writing the record back left the output bit-identical
    note: str = ""
    tolerance: float | None = None


class Proof(list[Proved]):
    """What was shown, router by router. `left_out`: sentences on modules that choose and are in no contract."""

    left_out: list[str]

    def __init__(self, rows: Iterable[Proved], left_out: Iterable[str] = ()) -> None:
        super().__init__(rows)
        self.left_out = list(left_out)

    def as_dicts(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [asdict(row) for row in self]


def prove(model: nn.Module, sites: list[Site], inputs: Mapping[str, Any]) -> Proof:
    """Prove every site on one forward pass of `model(**inputs)`; learns each site's top_k and score on the way.

    `sites` are put into the order in which they fired: a module may be registered before one that runs before it.

    Raises ProofFailed, naming the module, when a router never fires or its record does not give the layer's output, and
    InputError when the model cannot run on `inputs`.
    """
    with quiet(model, inputs) as again:

        def run(given: Mapping[str, Any] = inputs) -> list[Tensor]:
            again()
            return tensors(model(**given))

        reference = _first(model, run)
        with watched() as watch:
            steady = equal(reference, run())
        with observed(sites) as calls:
            listened = run()
        if steady and not equal(reference, listened):
            raise ProofFailed(f"{type(model).__name__} gives another output when it is listened to; nothing is traced")
        errors = {site.name: check_calls(site, calls[site.name]) for site in sites}
        identical = _written_back(sites, calls, run, reference) if steady else dict.fromkeys(errors, False)
        follows(sites, calls, run)
        change = changed(inputs, getattr(model, "config", None))
        notes = shows(sites, calls)
        if change is not None and steady:
            notes |= check_rows(sites, calls, change, lambda: run(change.inputs))
    order = {name: place for place, name in enumerate(calls)}
    sites.sort(key=lambda site: order[site.name])
    if not steady:
        notes = dict.fromkeys(errors, "the model is not deterministic: identity after writing back could not be shown") | notes
    rows = [_row(s, calls[s.name], errors[s.name], identical[s.name], notes.get(s.name, "")) for s in sites if calls[s.name]]
    return Proof(rows, left_out(model, sites, watch))


def _row(site: Site, calls: list[Call], error: float, identical: bool, note: str) -> Proved:
    """What is shown of a router by its calls."""
    tokens, most = len(calls[0].record.experts), max(tolerance(call) for call in calls)
    return Proved(site.path, site.contract.name, tokens, error, identical, note, most)


def _first(model: nn.Module, run: Run) -> list[Tensor]:
    try:
        return run()
    except MoescopeError:
        raise
    except Exception as failure:
        if out_of_memory(failure):
            raise
        said = (str(failure).splitlines() or [""])[0]
        raise InputError(
            f"{type(model).__name__} cannot run on the inputs of its proof ({type(failure).__name__}: {said}); give some that "
            "it takes: Tracer(model, store, inputs={...})"
        ) from failure


@contextmanager
def quiet(model: nn.Module, inputs: Mapping[str, Any]) -> Iterator[Callable[[], None]]:
    """Evaluation mode, no gradients, nobody's forwards, and everything that they change in the model put back at the end.

    Gives a function that puts it back in between, for a forward that starts where the one before it did.
    """
    state, depth = State(model, inputs), getattr(_here, "proofs", 0)
    unreached = [module for module in hidden_modules.hidden(model).values() if module.training]

    def again() -> None:
        state.restore()
        model.eval()
        hidden_modules.evaluate(model)

    _here.proofs = depth + 1
    try:
        again()
        with torch.no_grad():
            yield again
    finally:
        _here.proofs = depth
        state.restore()
        for module in unreached:
            module.training = True


def proving() -> bool:
    """Whether this thread is inside a proof, whose forwards belong to no trace."""
    return bool(getattr(_here, "proofs", 0))


def _written_back(sites: list[Site], calls: dict[str, list[Call]], run: Run, reference: list[Tensor]) -> dict[str, bool]:
    def write(site: Site, number: int) -> Edit:
        experts, weights = stored(calls[site.name][number])
        dropped = calls[site.name][number].record.dropped
        if dropped is not None and site.kind == "token_choice" and site.contract.keeps_drops:
            experts = experts.masked_fill(dropped, -1)
        return lambda e, w: (experts.to(e.dtype).reshape(e.shape), weights.to(w.dtype).reshape(w.shape))

    with edited(sites, write, last=True):
        same = equal(run(), reference)
    if not same:
        raise ProofFailed(
            f"writing the recorded decisions back changes the output of the model (routers {sites[0].path} …): the record "
            "is not what was executed; nothing is traced"
        )
    return dict.fromkeys((s.name for s in sites), True)
