"""Fashion-MNIST as both picture models read it, and the loss of a denoiser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moescope.inputs import read
from moescope.models.vmoe.images import prepare
from specimens.corpora.fashion import CLASSES, load

SIZE: Any = SimpleNamespace(image_size=(28, 28), channels=1)


def training() -> tuple[Tensor, Tensor]:
    """The 60,000 training pictures (N, 1, 28, 28) as moescope prepares them, and their classes (N,)."""
    raw, labels = load("train")
    return torch.from_numpy(prepare(raw, SIZE)), torch.from_numpy(labels)


def heldout() -> tuple[Tensor, Tensor]:
    """The 400 test pictures that moescope ships, and their classes as numbers."""
    examples = read("fashion-mnist").examples
    pixels = prepare(np.stack([e.image for e in examples]), SIZE)
    return torch.from_numpy(pixels), torch.tensor([CLASSES.index(e.labels["class"]) for e in examples])


def noised(pictures: Tensor, parts: Tensor, noise: Tensor) -> Tensor:
    """x_t = t noise + (1 - t) picture, with t `parts` (B,)."""
    t = parts[:, None, None, None]
    return t * noise + (1 - t) * pictures


def flow_loss(model: nn.Module, pictures: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of the velocity noise - picture at a t drawn evenly for every picture (rectified flow)."""
    parts = torch.rand(len(pictures), generator=generator)
    noise = torch.randn(pictures.shape, generator=generator)
    made = model(noised(pictures, parts, noise), parts * 1000, labels).sample
    return (made - (noise - pictures)).square().mean()
