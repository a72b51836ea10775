"""Layers of a package between embeddings, with the residual."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Ready = tuple[nn.Module, dict[str, Any]]


class Layered(nn.Module):
    """Embeddings (512, 16) and two layers; a layer that returns a tuple gives its output first."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(512, 16), nn.ModuleList(make() for _ in range(2))

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) → (B, S, 16)"""
        hidden: Tensor = self.embed(input_ids)
        for layer in self.layers:
            made = layer(hidden)
            hidden = hidden + (made[0] if isinstance(made, tuple) else made)
        return hidden


def stacked(make: Callable[[], nn.Module], batch: int = 3, places: int = 16) -> Ready:
    """The model, the same each time, and random ids."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Layered(make).eval()
    ids = torch.randint(3, 512, (batch, places), generator=torch.Generator().manual_seed(1))
    return model, {"input_ids": ids}
