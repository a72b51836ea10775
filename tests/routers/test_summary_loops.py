"""Summaries by the compiled loop: as exact as PyTorch's own, empty where nothing can be said."""

import numpy as np
import pytest
import torch

from moescope.contracts import Record
from moescope.routers.scores import summarize
from moescope.store.physical.summary_loops import FIELDS, summarized
from moescope.tracer.handover import record_batches
from moescope.tracer.options import Options


def _logits(rows: int, experts: int, spread: float = 1.5) -> torch.Tensor:
    return torch.randn(rows, experts, generator=torch.Generator().manual_seed(experts)) * spread


@pytest.mark.parametrize(("rows", "experts", "k"), [(1, 1, 1), (300, 8, 2), (129, 7, 3), (1000, 64, 8), (5, 384, 8)])
@pytest.mark.parametrize("spread", [0.0, 1.5, 60.0, 1e30])
def test_summaries_agree_with_float64(rows: int, experts: int, k: int, spread: float) -> None:
    logits = _logits(rows, experts, spread)
    chosen = logits.topk(k).indices
    found = summarized(logits.numpy(), chosen.numpy())
    assert found is not None
    exact = summarize(logits.double().float(), chosen, "softmax", FIELDS)
    p = torch.softmax(logits.double(), -1)
    entropy = -(p * p.clamp(min=1e-300).log()).sum(-1)
    np.testing.assert_allclose(found["entropy"], entropy.numpy(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(found["log_sum_exp"], logits.double().logsumexp(-1).numpy(), rtol=2e-7, atol=2e-6)
    np.testing.assert_allclose(found["margin"], exact["margin"].numpy(), rtol=0, atol=1e-6)


def test_margin_needs_a_chosen_and_an_unchosen_expert() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]] * 4, np.float32))
    chosen = np.array([[0, 1], [-1, -1], [2, 7], [1, 1]])
    found = summarized(logits, chosen)
    assert found is not None
    np.testing.assert_allclose(found["margin"], [0.1, np.nan, -0.3, -0.2], atol=1e-6)
    every = summarized(logits[:1], np.array([[0, 1, 2]]))
    assert every is not None
    assert np.isnan(every["margin"]).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_left_to_pytorch(bad: float) -> None:
    logits = _logits(4, 8)
    logits[2, 3] = bad
    assert summarized(logits.numpy(), np.zeros((4, 0), np.int64)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_forwards_say_what_small_ones_say(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    class Site:
        score, kind, key = "softmax", "token_choice", 0

    logits = _logits(200, 8).to(dtype)
    logits[7, 1] = float("-inf")
    clean = _logits(200, 8, 2.0).to(dtype)
    routed = []
    for some in (logits, clean):
        weights, experts = torch.softmax(some.float(), -1).topk(2)
        routed.append((Record(Site(), experts, weights, some), None, 0))  # type: ignore[arg-type]
    small = record_batches.batch_records(routed, Options())[0].tensors
    monkeypatch.setattr(record_batches, "_CACHED", 16)
    large = record_batches.batch_records(routed, Options())[0].tensors
    assert small.keys() == large.keys()
    for name, values in small.items():
        assert values.dtype == large[name].dtype
        close = 2**-10 if dtype == torch.bfloat16 and name in FIELDS else 2e-6  # halves of a step may fall on either side
        torch.testing.assert_close(large[name], values, rtol=0, atol=close, equal_nan=True)
