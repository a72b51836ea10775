"""What the tests of systems share: trace a model once, read every assignment back, and write decisions of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import moescope
from moescope.contracts import Site, find
from moescope.proof import edited, observed, quiet

Row = tuple[int, int, int, int, float, bool, int | None]

_ROWS = """select dense_rank() over (order by t.sequence) - 1, t.position, a.slot, a.expert, a.weight, a.dropped,
a.buffer_position from assignments a join routers r using (router) join tokens t using (token)
where r.name = ? order by t.sequence, t.position, a.slot"""


def traced(model: nn.Module, inputs: dict[str, Any], store: Path) -> list[Any]:
    """One forward into `store`; what was proved."""
    with moescope.Tracer(model, store, inputs=inputs) as tracer, torch.no_grad():
        model(**inputs)
    return tracer.proof


def rows(store: Path, router: str) -> list[Row]:
    """(sequence, place, slot, expert, weight to five digits, dropped, buffer place) of every assignment of a router."""
    with moescope.open(store) as opened:
        found = opened.rows(_ROWS, [router])
    return [(*row[:4], round(row[4], 5), *row[5:]) for row in found]


def expected(
    experts: Tensor, weights: Tensor, mask: Tensor, dropped: Tensor | None = None, buffer: Tensor | None = None
) -> list[Row]:
    """The same rows from (B, S, k) tensors and a (B, S) mask: an expert of -1 is no row."""
    found: list[Row] = []
    for b, s in mask.nonzero().tolist():
        for slot, expert in enumerate(experts[b, s].tolist()):
            if expert >= 0:
                gone = bool(dropped[b, s, slot]) if dropped is not None else False
                place = None if buffer is None else int(buffer[b, s, slot])
                found.append((b, s, slot, expert, round(float(weights[b, s, slot]), 5), gone, place))
    return found


def close(one: list[Row], other: list[Row], tolerance: float = 2e-5) -> bool:
    """Whether two lists of rows are the same, weights up to rounding."""
    alike = [(*row[:4], *row[5:]) for row in one] == [(*row[:4], *row[5:]) for row in other]
    return alike and all(abs(a[4] - b[4]) <= tolerance for a, b in zip(one, other))


def written(
    model: nn.Module, inputs: dict[str, Any], site: Site, edit: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Any, Tensor]:
    """(the layer's output before, after another decision was written, the record then heard, what follows from that record)"""
    with quiet(model, inputs) as again, torch.no_grad():
        with observed([site]) as calls:
            again()
            model(**inputs)
        before = calls[site.name][0].output.float()
        again()
        with edited([site], lambda *_: edit), observed([site]) as calls:
            model(**inputs)
        call = calls[site.name][0]
        follows = site.contract.recompute(site, call.inputs, call.record).float().reshape(call.output.shape)
    return before, call.output.float(), call.record, follows


def replayed(model: nn.Module, inputs: dict[str, Any], seeds: tuple[int, int] = (1, 2)) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a forward; of another one, from another random state; and of that one under the routes of the first."""
    from moescope.interventions import Replay, intervene, route_of

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return model(**inputs).logits  # type: ignore[no-any-return]

    with observed(find(model)) as calls:
        first = run(seeds[0])
    found = {site.path: site for site in find(model)}
    routes = {path: route_of(calls[site.name][0].record) for path, site in found.items()}
    other = run(seeds[1])
    with intervene(model, Replay(routes=routes)):
        return first, other, run(seeds[1])


def sites(model: nn.Module) -> dict[str, Site]:
    """The routers of a model by path."""
    return {site.path: site for site in find(model)}
