"""Two Tracers on one model, in any order; proofs that land in nobody's run; what is left on the model afterwards."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from transformers.cache_utils import DynamicCache

import moescope
from moescope.contracts import find
from moescope.interventions import Zero, intervene
from moescope.proof import example_inputs, prove


def _forwards(path: Path) -> list[tuple[Any, ...]]:
    with moescope.open(path) as store:
        return store.rows("select step, phase, tokens from forwards order by run, forward")


def test_a_second_proof_is_not_in_the_first_run(tmp_path: Path) -> None:
    """A notebook cell that is run twice attaches twice."""
    model, ids = small.mixtral(), small.ids(2, 5)
    with moescope.Tracer(model, tmp_path / "one.duckdb"), torch.no_grad():
        model(ids)
        with moescope.Tracer(small.mixtral(seed=1), tmp_path / "other.duckdb") as other:
            other.model(ids)
        with moescope.Tracer(model, tmp_path / "two.duckdb"):
            model(ids)
        model(ids)
        prove(model, find(model), example_inputs(model))
    assert _forwards(tmp_path / "one.duckdb") == [(n, "prefill", 10) for n in range(3)]
    assert _forwards(tmp_path / "two.duckdb") == [(0, "prefill", 10)]


def _left(model: Any) -> list[Any]:
    hooks = [(n, len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m))) for n, m in model.named_modules()]
    events = ("reorder_cache", "batch_select_indices", "crop")
    patched = [n for n in events if "moescope" in getattr(DynamicCache, n).__module__]
    return [hooks, patched]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.sampled(3)
def test_tracers_end_in_any_order(order: tuple[int, ...], tmp_path: Path) -> None:
    """Each has the forwards between its begin and its end, cache events included, and nothing of them stays."""
    model, ids = small.mixtral(), small.ids(2, 4)
    before = _left(model)
    tracers = [moescope.Tracer(model, tmp_path / f"{n}.duckdb") for n in range(3)]
    lives = dict.fromkeys(range(3), 0)

    def run() -> None:
        with torch.no_grad():
            cache = DynamicCache(config=model.config)
            model(ids, past_key_values=cache)
            cache.crop(-1)
            model(ids[:, -1:], past_key_values=cache)

    for tracer in tracers:
        tracer.__enter__()
        run()
        lives = {n: count + 1 if n <= tracers.index(tracer) else count for n, count in lives.items()}
    for n in order:
        tracers[n].__exit__(None, None, None)
        ended = order[: order.index(n) + 1]
        if len(ended) < 3:
            run()
            lives = {m: count + 1 if m not in ended else count for m, count in lives.items()}
    for n in range(3):
        assert [tokens for *_, tokens in _forwards(tmp_path / f"{n}.duckdb")] == [8, 2] * lives[n]
    assert _left(model) == before


@pytest.mark.parametrize("inner", [True, False])
def test_an_intervention_may_outlive_a_tracer(inner: bool, tmp_path: Path) -> None:
    """Begun before or inside, ended inside or after: the run holds what ran, the model is as it was."""
    model, ids = small.mixtral(), small.ids(2, 4)
    before, tracer = _left(model), moescope.Tracer(model, tmp_path / "run.duckdb")
    changes = intervene(model, Zero(layers=0, experts=[1, 2]))
    for thing in (tracer, changes) if inner else (changes, tracer):
        thing.__enter__()
    with torch.no_grad():
        model(ids)
    for thing in (tracer, changes) if inner else (changes, tracer):
        thing.__exit__(None, None, None)
    assert _left(model) == before
