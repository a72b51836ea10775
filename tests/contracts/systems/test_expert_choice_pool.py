"""Experts that choose tokens: EC-DiT and NucleusMoE by image, DiffMoE by batch, Expert Race over tokens and experts at once."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_systems import System, inputs_of, nucleus, own
from systems_checks import Rows, executes, halved, moved, same_rows, stored_rows, without
from torch import Tensor

import moescope
from moescope.contracts import Site, find
from moescope.errors import ProofFailed
from moescope.models.zoo._parts_diffusion import denoise
from moescope.proof import observed

Rule = Callable[[Any, tuple[Any, ...]], Rows]
"""(block, what it was called with) → {expert: weight} of its rows, by the published rule."""


def scores_of(block: Any, hidden: Tensor) -> Tensor:
    """(B, S, E) softmax over experts."""
    return torch.softmax(hidden @ block.router.weight.T, -1)


def best(column: Tensor, count: int) -> list[int]:
    """The places of the largest numbers of a column."""
    return sorted(range(len(column)), key=lambda i: -float(column[i]))[:count]


def by_image(block: Any, args: tuple[Any, ...]) -> Rows:
    """EC-DiT: in each image each of 4 experts takes 12 · 1.5 / 4 tokens."""
    rows: list[dict[int, float]] = []
    for scores in scores_of(block, args[0]):
        taken = [best(scores[:, e], int(len(scores) * 1.5 / 4)) for e in range(4)]
        rows += [{e: float(scores[i, e]) for e in range(4) if i in taken[e]} for i in range(len(scores))]
    return rows


def by_batch(trained: bool) -> Rule:
    """DiffMoE: each expert takes 36 · 1.5 / 4 tokens of the batch, or as many as its predictor wants."""

    def rule(block: Any, args: tuple[Any, ...]) -> Rows:
        flat = args[0].reshape(-1, args[0].shape[-1])
        scores, wanted = scores_of(block, flat), torch.sigmoid(block.router.capacity_predictor(flat))
        counts = [int(len(flat) * 1.5 / 4)] * 4 if trained else [
            sum(float(w) > float(block.router.expert_threshold[e]) for w in wanted[:, e]) for e in range(4)
        ]  # fmt: skip
        taken = [best(scores[:, e], counts[e]) for e in range(4)]
        return [{e: float(scores[i, e]) for e in range(4) if i in taken[e]} for i in range(len(flat))]

    return rule


def in_one_race(trained: bool) -> Rule:
    """Expert Race: the 36 · 1.5 largest of all scores, or those above the running threshold; the score is the weight."""

    def rule(block: Any, args: tuple[Any, ...]) -> Rows:
        scores = args[0].reshape(-1, args[0].shape[-1]) @ block.router.weight.T
        every = sorted(scores.flatten().tolist(), reverse=True)
        least = every[int(len(scores) * 1.5) - 1] if trained else math.nextafter(float(block.router.expert_threshold), 9.0)
        return [{e: float(s) for e, s in enumerate(row) if float(s) >= least} for row in scores]

    return rule


def by_image_and_time(block: Any, args: tuple[Any, ...]) -> Rows:
    """NucleusMoE: the gate sees timestep and unmodulated token; weights are divided by a token's sum, times 2.5."""
    _, plain, timed = args
    rows: list[dict[int, float]] = []
    for image, time in zip(plain, timed):
        logits = torch.stack([block.gate.weight @ torch.cat([time, token]) for token in image])
        scores = torch.sigmoid(logits) if block.use_sigmoid else torch.softmax(logits, -1)
        taken = [best(scores[:, e], math.ceil(len(image) / 4)) for e in range(4)]
        for i in range(len(image)):
            mine = {e: float(scores[i, e]) for e in range(4) if i in taken[e]}
            rows.append({e: 2.5 * s / sum(mine.values()) for e, s in mine.items()})
    return rows


SYSTEMS: dict[str, tuple[Callable[[], System], Rule, tuple[int, str, str]]] = {
    "ec_dit": (lambda: own("ec_dit"), by_image, (2, "expert_choice", "L")),
    "diffmoe": (lambda: own("diffmoe"), by_batch(False), (2, "expert_choice", "BL")),
    "diffmoe in training": (lambda: own("diffmoe", trained=True), by_batch(True), (2, "expert_choice", "BL")),
    "race": (lambda: own("race"), in_one_race(False), (2, "global", "BLE")),
    "race in training": (lambda: own("race", trained=True), in_one_race(True), (2, "global", "BLE")),
    "nucleus, softmax": (nucleus, by_image_and_time, (2, "expert_choice", "L")),
    "nucleus, sigmoid": (lambda: nucleus(use_sigmoid=True), by_image_and_time, (2, "expert_choice", "L")),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_sites(name: str) -> None:
    """Every routed layer, by this contract, with the axes that compete."""
    make, _, (count, kind, axes) = SYSTEMS[name]
    sites = find(make().model)
    assert [(s.contract.name, s.kind, s.pool_axes) for s in sites] == [("expert_choice_pool", kind, axes)] * count


@pytest.mark.parametrize("name", SYSTEMS)
def test_stored_is_the_rule(name: str, tmp_path: Path) -> None:
    """What is stored of every token is what the published rule gives for the layer's own input: none to all experts."""
    make, rule, _ = SYSTEMS[name]
    system = make()
    blocks = {s.path: s.name for s in find(system.model)}
    stored = stored_rows(system, tmp_path / "run.duckdb")
    heard = inputs_of(system, *blocks.values())
    counts = set()
    for router, rows in stored.items():
        expected = rule(system.model.get_submodule(blocks[router]), heard[blocks[router]][0])
        same_rows(rows, expected)
        counts |= {len(row) for row in expected}
    assert set(stored) == set(blocks)
    assert len(counts) > 2


def everyone(site: Site) -> Any:
    """An edit that gives every token to every expert: more than the pools had places for."""
    return lambda experts, weights: (torch.arange(site.n_experts).expand_as(experts).clone(), torch.full_like(weights, 0.3))


EDITS = {"moved": moved, "halved": halved, "without 0": without(0), "everyone": everyone}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_other_decisions_are_executed(name: str, edit: str) -> None:
    """The layer does what is written instead, also where a token had no place, and the listener says so."""
    executes(SYSTEMS[name][0](), EDITS[edit])


def test_edits_follow_each_other() -> None:
    """Two edits of one inline layer act one after the other, and the layer is as it was when both have gone."""
    system = nucleus()
    sites = find(system.model)
    before = system().sample
    one = sites[0].contract.edit(sites[0], moved(sites[0]))
    other = sites[0].contract.edit(sites[0], moved(sites[0]))
    with observed(sites) as calls:
        system()
    twice = calls[sites[0].name][0].record.experts
    for handle in (*one, *other):
        handle.remove()
    with observed(sites) as calls:
        assert torch.equal(system().sample, before)
    plain = calls[sites[0].name][0].record.experts
    assert torch.equal(twice, torch.where(plain < 0, -1, (plain + 2) % 4))


@pytest.mark.parametrize(
    ("name", "pools", "places", "threshold"),
    [("ec_dit", [0, 1, 2], 4, False), ("diffmoe in training", [0], 13, False), ("race", [0], None, True),
     ("nucleus, softmax", [0, 1], 4, False)],
)  # fmt: skip
def test_pools(name: str, pools: list[int], places: int | None, threshold: bool) -> None:
    """An image is a pool, or the batch is; places of an expert are counted, or there is a threshold."""
    system = SYSTEMS[name][0]()
    sites = find(system.model)
    with observed(sites) as calls:
        system()
    record = calls[sites[0].name][0].record
    assert record.pool is not None
    assert record.pool.unique().tolist() == pools
    assert record.pool_tokens == len(record.pool) // len(pools)
    assert record.capacity == places
    assert (record.threshold is not None) == threshold
    if places is not None:
        taken = (record.experts >= 0).sum(0) // len(pools)
        assert taken.tolist() == [places] * 4


@pytest.mark.parametrize("name", ["ec_dit", "diffmoe", "race"])
def test_denoising_steps(name: str, tmp_path: Path) -> None:
    """Each step of the sampling loop is a forward of its own."""
    system = own(name)
    with moescope.Tracer(system.model, tmp_path / "run.duckdb", inputs=system.inputs):
        denoise(system.model, system.inputs["hidden_states"], steps=2)
    assert moescope.open(tmp_path / "run.duckdb").rows("select count(*) from forwards") == [(2,)]


def doubled(system: System) -> System:
    """Every routed layer gives twice what its decision says."""
    for site in find(system.model):

        def twice(*args: Any, forward: Any = site.block.forward) -> Tensor:
            return 2 * forward(*args)

        site.block.forward = twice  # type: ignore[method-assign]
    return system


def other_scale(system: System) -> System:
    """A layer whose gate is read by a rule that is not its own: it normalizes by something else."""
    for site in find(system.model):
        assert site.experts is not None
        site.experts.register_forward_hook(lambda _, __, output: output * 1.1)
    return system


@pytest.mark.parametrize("make", [lambda: doubled(own("ec_dit")), lambda: other_scale(nucleus())])
def test_bad_fits_are_refused(make: Callable[[], System], tmp_path: Path) -> None:
    """One sentence that names the layer; nothing is written."""
    system = make()
    with pytest.raises(ProofFailed, match="does not follow from what would be stored"), moescope.Tracer(
        system.model, tmp_path / "run.duckdb", inputs=system.inputs
    ):  # fmt: skip
        pass
    assert list(tmp_path.iterdir()) == []
