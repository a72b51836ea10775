"""ConFiner (Li and others 2024, arXiv 2408.13252): experts that are whole denoisers, one for each stage of making a video.

A control expert lays out the video in the noisy steps; then spatial and temporal experts take turns in refining it. No code
of its authors was found (zhongyu-zhao/ConFiner-re is a sketch, which was read), and the paper was not at hand: which expert
denoises is fixed by stage and step, as told there. Here the experts are small denoisers of images, noise levels of the three
are one, and one forward is one step: at timesteps from `boundary` on control, below it spatial and temporal by turns of
`stride`.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ._parts_diffusion import Block, DiT, Expert, noise
from ._parts_text import seeded

READS = "noise"
NAMES = {0: "control", 1: "spatial", 2: "temporal"}


class Dense(nn.Module):
    """A feed-forward in a block's place for one."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.only = Expert(hidden, 2 * hidden)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(B, S, H) → (B, S, H); the condition is in the tokens already."""
        return self.only(hidden)


class Whole(nn.Module):
    """A denoiser that gives its sample alone."""

    def __init__(self, model: DiT) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W), (B,), (B,) → (B, C, H, W)."""
        return self.model(sample, timestep, labels).sample


class Stages(nn.Module):
    """The denoiser of an image's stage."""

    kind, unit, decides_by, whole = "static", "sequence", "route", True
    expert_names = NAMES

    def __init__(self, experts: list[DiT], boundary: float, stride: float) -> None:
        super().__init__()
        self.experts, self.boundary, self.stride = nn.ModuleList(map(Whole, experts)), boundary, stride

    def route(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) → experts (B, 1), weights of 1 (B, 1)."""
        turn = ((self.boundary - timestep) / self.stride).floor().long() % 2
        number = torch.where(timestep >= self.boundary, 0, 1 + turn)[:, None]
        return number, torch.ones_like(number, dtype=timestep.dtype)

    def alongside(self, sample: Tensor, timestep: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What an expert takes beside the image."""
        return timestep, labels

    def forward(self, sample: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W), (B,), (B,) → (B, C, H, W)."""
        number, weight = self.route(timestep)
        made = torch.zeros_like(sample)
        for expert, module in enumerate(self.experts):
            image, slot = (number == expert).nonzero(as_tuple=True)
            if len(image):
                made[image] += module(sample[image], timestep[image], labels[image]) * weight[image, slot, None, None, None]
        return made


class ConFiner(nn.Module):
    """A denoiser of images."""

    def __init__(self, stages: Stages, config: SimpleNamespace) -> None:
        super().__init__()
        self.stages, self.config = stages, config

    def forward(self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
        """(B, C, H, W), (B,), (B,) → an object with `sample` (B, C, H, W)."""
        labels = torch.full_like(timestep, self.config.num_classes) if class_labels is None else class_labels
        return SimpleNamespace(sample=self.stages(hidden_states, timestep, labels))


def build(seed: int = 0, *, hidden: int = 32, layers: int = 1, heads: int = 4, boundary: float = 650.0, stride: float = 125.0,
          **changes: Any) -> ConFiner:  # fmt: skip
    """A tiny one; `changes`: channels, patch, size, classes."""

    def make() -> nn.Module:
        models = [
            DiT("confiner", [Block(hidden, heads, Dense(hidden)) for _ in range(layers)], hidden, **changes) for _ in NAMES
        ]
        return ConFiner(Stages(models, boundary, stride), models[0].config)

    return seeded(make, seed)


example = noise
