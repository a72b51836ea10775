"""Ablation, replay and contributions reach every system of the diffusion kind through its contract."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusion_systems import LitGPTLike, MultiwayLayer, System, TitanLike, cogvideox, hidream, nucleus, own, seeded, stacked
from torch import Tensor

from moescope.contracts import find
from moescope.errors import ModelError
from moescope.interventions import (
    Mean,
    RandomRouter,
    Replay,
    RouteAround,
    Swap,
    TopK,
    Zero,
    contribution,
    intervene,
    norms,
    route_of,
)
from moescope.proof import observed, prove, tensors
from moescope.routers.contribution import always

OWN = ["dit_moe", "diff_moe", "switch_dit", "uni_moe", "ec_dit", "diffmoe", "race", "vdd", "vlmo", "confiner"]
SYSTEMS: dict[str, Callable[[], System]] = {name: (lambda name=name: own(name)) for name in OWN} | {
    "hidream": hidream,
    "nucleus": nucleus,
    "cogvideox": cogvideox,
    "litgpt": lambda: stacked(seeded(LitGPTLike)),
    "torchtitan": lambda: stacked(seeded(TitanLike)),
    "multiway": lambda: stacked(seeded(lambda: MultiwayLayer(2))),
}


def output(system: System) -> Tensor:
    """All that a forward gives."""
    return torch.cat([t.flatten() for t in tensors(system())])


@pytest.mark.parametrize("name", SYSTEMS)
def test_zero_then_replay(name: str) -> None:
    """Without expert 1 the output is another one; with the recorded route behind that it is the old one, bit by bit."""
    system = SYSTEMS[name]()
    sites = find(system.model)
    with observed(sites) as calls:
        reference = output(system)
    routes = {s.path: route_of(calls[s.name][0].record) for s in sites}
    with intervene(system.model, Zero(experts=[1]), sites=sites):
        assert not torch.equal(output(system), reference)
    with intervene(system.model, Zero(experts=[1]), Replay(routes=routes), sites=sites):
        assert torch.equal(output(system), reference)
    assert torch.equal(output(system), reference)


@pytest.mark.parametrize("name", SYSTEMS)
def test_contributions_add_up(name: str) -> None:
    """What the experts give, and what is there whoever runs, is the layer's output."""
    system = SYSTEMS[name]()
    sites = find(system.model)
    prove(system.model, sites, system.inputs)
    with observed(sites) as calls:
        system()
    for site in sites:
        call = calls[site.name][0]
        parts = [contribution(call, e) for e in range(site.n_experts + site.special_experts)]
        whole = sum(parts) + always(call)
        torch.testing.assert_close(torch.as_tensor(whole), call.output.float().flatten(0, -2), rtol=1e-4, atol=1e-5)
        unused = [e for e in range(site.n_experts) if not bool((call.record.experts == e).any())]
        assert all(not bool(parts[e].any()) for e in unused)


@pytest.mark.parametrize("name", ["dit_moe", "diff_moe", "hidream", "litgpt", "torchtitan", "switch_dit"])
def test_token_choice_edits(name: str) -> None:
    """The next best, another number of experts, and exchanged experts are executed where tokens (or images) choose."""
    system = SYSTEMS[name]()
    sites = find(system.model)
    prove(system.model, sites, system.inputs)
    seen: dict[str, Any] = {}
    for edit in (RouteAround(experts=[0]), Swap(a=0, b=1), RandomRouter(seed=1)):
        with intervene(system.model, edit, sites=sites), observed(sites) as calls:
            system()
        seen[edit.mode] = calls[sites[0].name][0].record.experts
    with observed(sites) as calls:
        system()
    plain = calls[sites[0].name][0].record.experts
    assert not bool((seen["route-around"] == 0).any())
    assert torch.equal(seen["swap"], torch.where(plain == 0, 1, torch.where(plain == 1, 0, plain)))
    assert not torch.equal(seen["random-router"], plain)


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("race", RouteAround(experts=[0]), "all tokens and experts compete at once"),
        ("race", Swap(a=0, b=1), "is global: its tokens do not choose experts"),
        ("ec_dit", RouteAround(experts=[0]), "lets experts choose tokens"),
        ("vdd", RouteAround(experts=[0]), "weighs all its components"),
        ("vdd", TopK(k=1), "is of kind sampled"),
        ("vlmo", RouteAround(experts=[0]), "is told its expert by the caller"),
    ],
)
def test_what_has_no_meaning_is_refused(name: str, edit: Any, words: str) -> None:
    """One sentence that says why, and what to use."""
    system = SYSTEMS[name]()
    with pytest.raises(ModelError, match=words), intervene(system.model, edit):
        pass


@pytest.mark.parametrize("name", ["dit_moe", "ec_dit", "nucleus"])
def test_no_mean_where_experts_are_called_one_by_one(name: str) -> None:
    """The mean stands in for an expert only where the experts' sum passes through one call."""
    system = SYSTEMS[name]()
    sites = find(system.model)
    means = {s.path: torch.zeros(s.n_experts, 32) for s in sites}
    with pytest.raises(ModelError, match="give no sum per token, so no mean fits; use zero"), intervene(
        system.model, Mean(experts=[0], means=means)
    ):  # fmt: skip
        pass


def test_norms_of_what_acts() -> None:
    """Of a sampled mixture only what acts has a contribution: every row is counted once."""
    system = own("vdd")
    sites = find(system.model)
    found = norms(system.model, sites, [system.inputs])
    assert sum(int(c) for c in found["policy"].count) == 36
