"""From a router's logits to experts and weights, against the routers of Transformers; and what does not follow is noticed."""

from typing import Any

import numpy as np
import pytest
import torch
import written_gguf

from moescope.routers.rule import Rule, disagreement
from moescope.tracer.capture import frames  # noqa: F401  (the tracer is loaded once, before models)

FAMILIES = {
    "olmoe": lambda router: Rule("softmax", False),
    "mixtral": lambda router: Rule("softmax", True),
    "qwen3_moe": lambda router: Rule("softmax", True),
    "glm4_moe": lambda router: Rule("sigmoid", True, 1.5, router.e_score_correction_bias.numpy()),
}


def _decided(family: str) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """The last routed block's router, and its logits, experts and weights as its experts were handed them."""
    from moescope.contracts import find

    model, found = written_gguf.model_of(family), []
    site = find(model)[-1]
    handles = site.contract.listen(site, found.append)
    with torch.no_grad():
        model(torch.arange(3, 63)[None])
    for handle in handles:
        handle.remove()
    (record,) = found
    return site.router, record.logits.numpy(), record.experts.numpy(), record.weights.float().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_transformers_does(family: str) -> None:
    router, logits, experts, weights = _decided(family)
    rule = FAMILIES[family](router)
    assert disagreement(rule, logits, experts, weights) is None
    np.testing.assert_allclose(rule.weights(logits, experts), weights, rtol=2e-5)
    assert np.array_equal(np.sort(np.argsort(-rule.choosing(logits))[:, :2]), np.sort(experts))


def _groups(logits: np.ndarray, groups: int, kept: int, k: int) -> np.ndarray:
    """Experts by a loop: the best groups by the sum of their two best, then the best experts in them."""
    found = []
    for row in 1 / (1 + np.exp(-logits)):
        size = len(row) // groups
        best = sorted(range(groups), key=lambda g: -sum(sorted(row[g * size : (g + 1) * size])[-2:]))[:kept]
        inside = [e for e in range(len(row)) if e // size in best]
        found.append(sorted(inside, key=lambda e: -row[e])[:k])
    return np.array(found)


def test_groups() -> None:
    logits = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    rule = Rule("sigmoid", True, 2.5, None, 4, 2)
    experts = _groups(logits, 4, 2, 3)
    assert disagreement(rule, logits, experts, rule.weights(logits, experts)) is None
    assert (np.sort(_groups(logits, 4, 4, 3)) != np.sort(experts)).any()
    free = _groups(logits, 4, 4, 3)
    assert (
        disagreement(rule, logits, free, rule.weights(logits, free))
        == "other experts ran than the largest scores of its logits"
    )


def _spoilt() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20, 8)).astype(np.float32)
    experts = np.argsort(-logits, -1)[:, :2]
    rule = Rule("softmax", True)
    return {"rule": rule, "logits": logits, "experts": experts, "weights": rule.weights(logits, experts)}


WRONG = {
    "another score": (lambda s: s | {"rule": Rule("sigmoid", True)}, "weights are up to"),
    "not normalized": (lambda s: s | {"rule": Rule("softmax", False)}, "weights are up to"),
    "another scale": (lambda s: s | {"weights": s["weights"] * 1.01}, "weights are up to"),
    "a bias that nobody knows": (lambda s: s | {"experts": (s["experts"] + 1) % 8}, "other experts ran"),
    "rows moved by one": (lambda s: s | {n: np.roll(s[n], 1, 0) for n in ("experts", "weights")}, "other experts"),
    "twice": (lambda s: s | {"experts": s["experts"][:, [0, 0]]}, "ran twice"),
    "beyond": (lambda s: s | {"experts": s["experts"] + 8}, "and there are 8"),
    "no number": (lambda s: s | {"logits": s["logits"] * np.nan}, "not finite"),
    "weights of NaN": (lambda s: s | {"weights": s["weights"] * np.nan}, "weights are up to nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_follow_is_said(case: str) -> None:
    spoil, said = WRONG[case]
    assert disagreement(**_spoilt()) is None
    assert said in (disagreement(**spoil(_spoilt())) or "")


def test_what_another_program_runs_is_not_intervened_in() -> None:
    from types import SimpleNamespace

    from moescope.errors import InputError
    from moescope.interventions import ablate, intervene
    from moescope.interventions.experiments import experiment
    from moescope.routers.engine_block import EngineBlock

    model = torch.nn.ModuleDict({"3": EngineBlock(8, 2, "softmax", {})})
    loaded: Any = SimpleNamespace(model=model)
    for call in (
        lambda: ablate(loaded, "x.duckdb", sweep=True),
        lambda: experiment("regret", loaded, "x.duckdb"),
        lambda: intervene(model).__enter__(),
    ):
        with pytest.raises(InputError, match="is run by another program"):
            call()
