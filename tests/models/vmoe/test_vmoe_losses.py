"""Auxiliary losses against sums done by hand."""

import math

import pytest
import torch

from moescope.models.vmoe.losses import gshard_loss, importance_loss, load_loss


def test_importance_is_the_squared_coefficient_of_variation() -> None:
    gates = torch.tensor([[[0.9, 0.1], [0.7, 0.3]], [[0.5, 0.5], [0.5, 0.5]]])
    # sums 1.6 and 0.4: mean 1, variance 0.36; equal sums: 0
    torch.testing.assert_close(importance_loss(gates), torch.tensor([0.36, 0.0]))


def test_balanced_experts_have_a_gradient_of_zero() -> None:
    gates = torch.full((1, 4, 2), 0.5, requires_grad=True)
    importance_loss(gates).sum().backward()
    assert gates.grad is not None
    assert torch.equal(gates.grad, torch.zeros_like(gates))


def test_gshard_is_one_when_balanced_and_e_when_collapsed() -> None:
    balanced = torch.tensor([[[0.6, 0.4], [0.4, 0.6]]])
    collapsed = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    torch.testing.assert_close(gshard_loss(balanced), torch.tensor([1.0]))
    torch.testing.assert_close(gshard_loss(collapsed), torch.tensor([2.0]))


def test_load_is_the_variation_of_chances_to_win() -> None:
    logits = torch.tensor([[[1.0, 0.0, 0.0]]])
    noisy = torch.tensor([[[0.5, 0.2, 0.1]]])
    chance = [0.5 * (1 + math.erf((x - 0.2) / 0.5 / math.sqrt(2))) for x in (1.0, 0.0, 0.0)]  # threshold: second best
    mean = sum(chance) / 3
    expected = sum((c - mean) ** 2 for c in chance) / 3 / mean**2
    assert load_loss(logits, noisy, 0.5, 2).item() == pytest.approx(expected, rel=1e-5)
