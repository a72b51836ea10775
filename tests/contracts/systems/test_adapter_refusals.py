"""Modules that speak the contract of adapter mixtures and do something else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mixtures import traced
from torch import nn

from moescope.errors import ProofFailed
from moescope.models.zoo import lora_moe
from moescope.models.zoo._parts_mixtures import AdaptedLM, Decision, everyone, put_on


class Says(nn.Module):
    """A projection that says it is a mixture, and executes something else."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.mixture = base, {"experts": 2}

    def route(self, hidden: torch.Tensor) -> Any:
        weights = torch.full((hidden.shape[0] * hidden.shape[1], 2), 0.5)
        return Decision(everyone(weights), weights)

    def part(self, number: int, hidden: torch.Tensor) -> torch.Tensor:
        return self.base_layer(hidden) * (number + 1)

    def rest(self, hidden: torch.Tensor) -> float:
        return 0.0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.route(hidden)
        return self.base_layer(hidden)


def test_bad_fit(tmp_path: Path) -> None:
    """A module that speaks the contract and does not do what it says is refused."""
    model = AdaptedLM("says").eval()
    put_on(model, r"mlp\.up_proj$", Says)
    with pytest.raises(ProofFailed, match=r"layers\.0\.mlp\.up_proj does not follow from what would be stored"):
        traced(model, lora_moe.example(model), tmp_path / "a.duckdb")
    assert not (tmp_path / "a.duckdb").exists()
