"""What every contract is asked for every system it claims: the store has the rule's decisions, and another one is executed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusion_systems import System
from torch import Tensor

import moescope
from moescope.contracts import Edit, Site, find
from moescope.proof import edited, observed, prove

Rows = Sequence[dict[int, float]]
"""For each row: {expert: weight}"""


def dense(experts: Tensor, weights: Tensor) -> list[dict[int, float]]:
    """(T, k) numbers and weights → rows; -1 is no expert."""
    return [{int(e): float(w) for e, w in zip(*row) if e >= 0} for row in zip(experts.tolist(), weights.double().tolist())]


def stored_rows(system: System, path: Path) -> dict[str, list[dict[int, float]]]:
    """{router: rows} of a trace of one forward, read back from the store; the trace has passed the proof and `verify`."""
    with moescope.Tracer(system.model, path, inputs=system.inputs):
        system()
    store = moescope.open(path)
    found: dict[str, list[dict[int, float]]] = {}
    for router, token, expert, weight in store.rows(
        "select r.name, d.token, a.expert, a.weight from decisions d join routers r using (router) left join assignments a "
        "on a.router = d.router and a.forward = d.forward and a.token = d.token order by r.router, d.token, a.rank"
    ):
        rows = found.setdefault(router, [])
        if not rows or rows[-1].get(-1) != token:
            rows.append({-1: token})
        if expert is not None:
            rows[-1][expert] = weight
    return {router: [{e: w for e, w in row.items() if e >= 0} for row in rows] for router, rows in found.items()}


def same_rows(ours: Rows, theirs: Rows, relative: float = 1e-5) -> None:
    """Whole rows, weights within rounding."""
    assert [set(row) for row in ours] == [set(row) for row in theirs]
    for one, other in zip(ours, theirs):
        assert all(abs(one[e] - other[e]) <= relative * max(1e-3, abs(other[e])) for e in one), (one, other)


def moved(site: Site) -> Edit:
    """Every routed expert becomes the next one; empty places and numbers with a role stay."""
    return lambda experts, weights: (
        torch.where((experts < 0) | (experts >= site.n_experts), experts, (experts + 1) % site.n_experts),
        weights,
    )


def halved(site: Site) -> Edit:
    """Half the weights."""
    return lambda experts, weights: (experts, weights / 2)


def without(number: int) -> Any:
    """An edit that takes one expert out: an empty place with weight 0."""
    return lambda site: (
        lambda experts, weights: (
            experts.masked_fill(experts == number, -1),
            weights.masked_fill(experts == number, 0),
        )
    )


def executes(system: System, make: Any) -> None:
    """Under the edit `make(site)` of each site in turn its output is what `recompute` makes of what was written, the listener
    reports what was written, and that is another output than before wherever it is another decision."""
    sites = find(system.model)
    prove(system.model, sites, system.inputs)
    seen: list[bool] = []
    for site in sites:
        with observed([site]) as calls:
            system()
        before = calls[site.name][0]
        written = make(site)(before.record.experts.clone(), before.record.weights.clone())
        with edited([site], lambda s, _: make(s)), observed([site]) as calls:
            system()
        after = calls[site.name][0]
        heard = dense(after.record.experts, after.record.weights)
        asked = dense(*written)
        same_rows(
            [{e: w for e, w in row.items() if w} for row in heard], [{e: w for e, w in row.items() if w} for row in asked]
        )
        record = type(before.record)(**{**before.record.__dict__, "experts": written[0], "weights": written[1]})
        expected = site.contract.recompute(site, before.inputs, record).float().reshape(before.output.shape)
        torch.testing.assert_close(after.output.float(), expected, rtol=1e-4, atol=1e-5)
        differs = asked != dense(before.record.experts, before.record.weights)
        assert differs != torch.allclose(after.output, before.output, rtol=1e-4, atol=1e-5), site.name
        seen.append(differs)
    assert any(seen)
