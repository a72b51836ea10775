"""What is recorded is what the experts were called with, whoever hooks when; a router that was overruled is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from executed import executed, rows
from torch import nn

import moescope
from moescope.contracts import Site, find
from moescope.models import tiny
from moescope.proof import edited

FAMILIES = ["mixtral", "deepseek_v3", "gpt_oss", "qwen3_moe", "jamba", "dbrx", "zaya"]
Place = Callable[[Site], Any]


def _other(experts: torch.Tensor) -> torch.Tensor:
    return torch.where(experts == 2, 3, torch.where(experts == 3, 2, experts))


def before_experts(site: Site) -> Any:
    """A pre-hook that hands other experts on."""
    return site.experts.register_forward_pre_hook(lambda _, a: (a[0], _other(a[1]), *a[2:]))


def prepended(site: Site) -> Any:
    return site.experts.register_forward_pre_hook(lambda _, a: (a[0], _other(a[1]), *a[2:]), prepend=True)


def weights_halved(site: Site) -> Any:
    """A pre-hook that leaves the experts and changes the weights."""
    return site.experts.register_forward_pre_hook(lambda _, a: (a[0], a[1], a[2] / 2))


def written_into(site: Site) -> Any:
    """A pre-hook that returns nothing and writes into the tensors that it is given."""

    def write(_: nn.Module, args: Any) -> None:
        args[1].copy_(_other(args[1]))
        args[2].div_(2)

    return site.experts.register_forward_pre_hook(write)


def everywhere(site: Site) -> Any:
    """A hook on all modules of the process."""

    def swap(module: nn.Module, args: Any) -> Any:
        return (args[0], _other(args[1]), *args[2:]) if module is site.experts else None

    return nn.modules.module.register_module_forward_pre_hook(swap)


def by_edit(site: Site) -> Any:
    """moescope's own way to execute something else."""
    handles = site.contract.edit(site, lambda e, w: (_other(e), w / 2))

    class All:
        def remove(self) -> None:
            for handle in handles:
                handle.remove()

    return All()


def nothing(site: Site) -> Any:
    """A hook that only looks."""
    return site.experts.register_forward_pre_hook(lambda *_: None)


WAYS: list[Place] = [before_experts, prepended, weights_halved, written_into, everywhere, by_edit]


def _traced(built: Any, path: Path, way: Place, when: str) -> tuple[list[Any], list[str], list[Any]]:
    """(truth, warnings, stored) of one forward with a hook on every router's experts."""
    handles: list[Any] = []

    def place() -> None:
        handles.extend(way(site) for site in find(built.model))

    if when == "before":
        place()
    with moescope.Tracer(built.model, path, inputs=built.inputs), torch.no_grad():
        if when == "after":
            place()
        with executed(built.model) as calls:
            built.model(**built.inputs)
    for handle in handles:
        handle.remove()
    with moescope.open(path) as store:
        stored = store.rows("select name, a.token, a.expert, a.weight from assignments a join routers using (router)")
        tokens = {t: n for n, (t,) in enumerate(store.rows("select token from tokens order by token"))}
        warnings = _warnings(store)
    blocks = sorted((name.rpartition(".")[0], tokens[token], expert, weight) for name, token, expert, weight in stored)
    return rows(calls), warnings, blocks


def _warnings(store: Any) -> list[str]:
    ((said,),) = store.rows("select warnings from runs")
    return json.loads(said) if said else []


def _real(built: Any, found: list[Any]) -> list[Any]:
    """Rows of tokens that are no padding, numbered as stored."""
    mask = built.inputs.get("attention_mask")
    if mask is None:
        return found
    places = {row: n for n, row in enumerate(mask.flatten().nonzero()[:, 0].tolist())}
    return sorted((name, places[row], e, w) for name, row, e, w in found if row in places)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.sampled(6)
def test_what_ran_is_stored(family: str, way: Place, when: str, tmp_path: Path) -> None:
    built = tiny.build(family)
    truth, warnings, stored = _traced(built, tmp_path / "run.duckdb", way, when)
    if family == "zaya":  # the number that skips the layer is stored as expert E
        truth = [(n, r, 8 if (e, w) == (0, 0.0) else e, w) for n, r, e, w in truth]
    assert stored == _real(built, truth)
    said = [w for w in warnings if "executed something else than its router decided" in w]
    decides = family != "dbrx"  # its router hands out logits, and the layer decides
    assert bool(said) == decides, warnings


@pytest.mark.sampled(3)
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_said_of_routers_that_are_followed(family: str, tmp_path: Path) -> None:
    built = tiny.build(family)
    _, warnings, _ = _traced(built, tmp_path / "run.duckdb", nothing, "after")
    assert not [w for w in warnings if "executed something else" in w]


def _changes_scores(_: nn.Module, __: Any, output: Any) -> Any:
    return (output[0].roll(1, -1), *output[1:])


@pytest.mark.parametrize("when", ["before", "after"])
def test_scores_changed_behind_a_router(when: str, tmp_path: Path) -> None:
    """Llama 4's decision is only in its router's output: what the last hook left there is what runs."""
    built = tiny.build("llama4_text")
    routers = [site.router for site in find(built.model)]
    left: list[torch.Tensor] = []

    def hook() -> list[Any]:
        handles = [r.register_forward_hook(_changes_scores) for r in routers]
        return handles + [r.register_forward_hook(lambda _, __, o: left.append(o[0].clone())) for r in routers]

    handles = hook() if when == "before" else []
    with moescope.Tracer(built.model, tmp_path / "run.duckdb", inputs=built.inputs), torch.no_grad():
        handles += hook() if when == "after" else []
        left.clear()
        built.model(**built.inputs)
    for handle in handles:
        handle.remove()
    every = [(layer, row, *pair) for layer, scores in enumerate(left) for row, line in enumerate(scores.tolist())
             for pair in enumerate(line) if pair[1]]  # fmt: skip
    truth = _real(built, every)
    with moescope.open(tmp_path / "run.duckdb") as store:
        stored = store.rows("select router, token, expert, weight from assignments")
        warnings = _warnings(store)
        decided = store.rows("select count(*) from decided")[0][0]
    assert sorted(row for row in stored if row[3]) == truth
    assert decided == len(stored)
    assert [w for w in warnings if "executed something else" in w]


def test_a_hook_on_what_decides_is_seen_in_every_contract(tmp_path: Path) -> None:
    """An edit placed inside the block is what is recorded: the same rows as when it was there at attach."""
    for family in ["mixtral", "jamba", "llama4_text", "jetmoe", "switch_transformers", "nllb-moe", "vitpose_backbone", "doge"]:
        built = tiny.build(family)

        def edit(_: Site, __: int) -> Any:
            return lambda e, w: (torch.where(e == 1, 0, e), w * 0.5)

        kept = []
        for when in ("before", "after"):
            path = tmp_path / f"{family}-{when}.duckdb"
            sites = find(built.model)
            tracer = moescope.Tracer(built.model, path, inputs=built.inputs)
            with torch.no_grad():
                if when == "before":
                    with edited(sites, edit), tracer:
                        built.model(**built.inputs)
                else:
                    with tracer, edited(sites, edit):
                        built.model(**built.inputs)
            with moescope.open(path) as store:
                kept.append(store.rows("select router, token, rank, expert, weight from assignments order by all"))
        assert kept[0] == kept[1], family
        assert kept[0]
