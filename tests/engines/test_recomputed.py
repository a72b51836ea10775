"""Decisions made again from the logits that routers were given."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_vllm import Asked, recorded, worker

import moescope


def _another_score(router: Any) -> None:
    router.scoring_func = "sigmoid"


def _not_divided(router: Any) -> None:
    router.renormalize = False


def _bias(router: Any) -> None:
    router.e_score_correction_bias = torch.arange(8.0)


def _grouped(router: Any) -> None:
    router.num_expert_group, router.topk_group = 8, 3  # each expert alone is no grouping


def _moved(router: Any) -> None:
    inner = router._compute_routing
    router._compute_routing = lambda *a, **k: tuple(part.roll(1, 0) for part in inner(*a, **k))


def _own_function(router: Any) -> None:
    router.custom_routing_function = print


AGAIN = {
    "as it says": (lambda router: None, None, 3),
    "groups of one": (_grouped, None, 3),
    "another score": (_another_score, "its weights are up to", 3),
    "weights not divided": (_not_divided, "its weights are up to", 3),
    "a bias": (_bias, "other experts ran", 3),
    "rows of other tokens": (_moved, "other experts ran", 3),
    "a function of its own": (_own_function, None, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", AGAIN)
def test_decisions_follow_from_the_logits_that_routers_were_given_or_nothing_is_kept(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every one of the first decisions; of one router that decides otherwise than it says, or of which nobody knows how."""
    spoil, word, known = AGAIN[case]
    made, asked = worker(), [Asked("a", list(range(1, 9)), 4), Asked("b", [4, 5], 4)]
    spoil(made.model_runner.routers[1])
    with caplog.at_level(logging.WARNING, "vllm.moescope"):
        watch = recorded(tmp_path, made, asked, caching=False, preempting=False)
    assert all(one.done for one in asked)
    if word is None:
        rows = sum(len(one.seen) for one in asked)
        assert (watch.recorder.kept, watch.recorder.lost, caplog.text) == (2, 0, "")
        with moescope.open(tmp_path / "a.duckdb") as store:
            said = json.loads(store.sql("select warnings from runs").to_dicts()[0]["warnings"])
        told = f"{rows * known:,} decisions were made again from the logits that their routers were given (softmax, divided by"
        assert any(text.startswith(told) for text in said), said
        assert any(text.startswith("how 1 of 3 routers come") for text in said) == (known == 2)
    else:
        assert (watch.recorder.kept, watch.recorder.lost) == (0, 2)
        assert f"layer 2: {word}" in caplog.text
        assert "requests go on" in caplog.text
        assert not (tmp_path / "a.duckdb").exists()


def test_groups_and_scales_of_a_router_are_those_of_its_model() -> None:
    """By the sum of two with a bias, by the largest without; the weights' scale is what the configuration says."""
    from moescope.engines.vllm.facts import routers_of, rule_of

    made = worker()
    own = made.model_runner.routers[0]
    own.num_expert_group, own.topk_group, own.routed_scaling_factor = 4, 2, 1.5
    first = routers_of(made.model_runner.get_model())[0]
    assert str(rule_of(first, {})) == "softmax, 2 of 4 groups, divided by their sum, times 1.5"
    own.e_score_correction_bias = torch.zeros(8)
    found = rule_of(first, {"routed_scaling_factor": 2.5})
    assert found is not None
    assert (str(found), found.groups_by) == ("softmax, bias, 2 of 4 groups, divided by their sum, times 2.5", 2)
    own.use_grouped_topk = False
    assert str(rule_of(first, {})) == "softmax, bias, divided by their sum, times 1.5"
    own.scoring_func = "noisy"
    assert rule_of(first, {}) is None


def test_after_the_first_decisions_some_forwards_are_made_again() -> None:
    from moescope.engines import recomputed
    from moescope.routers.rule import Rule

    made = recomputed.Recomputation([Rule("softmax", True)] * 4)
    first = [made.due(64) for _ in range(recomputed.ALL // 256 + 1)]
    assert all(first)
    assert sum(made.due(64) for _ in range(640)) == 10
    assert not recomputed.Recomputation([None]).due(1)
