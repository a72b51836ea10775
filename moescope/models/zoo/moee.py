"""Mixture of emotion experts (Liu et al. 2025, MoEE, arXiv 2501.01808): six cross-attentions, mixed softly by two gates.

In every block of a denoiser the picture's places look at an emotion's latents through six experts, one a basic emotion. A
local gate weighs them for each place, a global gate for the whole picture, both by softmax over the emotions: place t of
sequence b gets Σ_e global_be · local_te · E_e(x_t, emotion_b). No code was found, and of the paper only its abstract and
summaries could be read: that the two gates' weights are multiplied, and that the global gate sees the mean over places and
the timestep, is our reading of "soft global-local gating".
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ._parts_text import Block, feed_forward, places, seeded

READS = "other"  # noise and an emotion's latents: see `example`
EMOTIONS = ("happiness", "sadness", "anger", "disgust", "fear", "surprise")


@dataclass
class Denoised:
    """sample: as the hidden states that went in."""

    sample: Tensor


class CrossAttention(nn.Module):
    """What places (B, S, H) take from a context (B, C, H)."""

    def __init__(self, hidden: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        """(B, S, H)"""
        return self.attention(hidden, context, context, need_weights=False)[0]


class EmotionExperts(nn.Module):
    """Six cross-attentions and their two gates; `weigh` says both gates' weights."""

    names = EMOTIONS

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(CrossAttention(hidden) for _ in EMOTIONS)
        self.local_gate = nn.Linear(hidden, len(EMOTIONS))
        self.global_gate = nn.Linear(hidden, len(EMOTIONS))

    def weigh(self, hidden: Tensor, time: Tensor) -> dict[str, Tensor]:
        """local (B, S, 6) and global (B, 6) weights."""
        whole = self.global_gate(hidden.mean(1) + time)
        return {"local": self.local_gate(hidden).softmax(-1), "global": whole.softmax(-1)}

    def forward(self, hidden: Tensor, context: Tensor, time: Tensor) -> Tensor:
        """(B, S, H) → (B, S, H)"""
        weights = self.weigh(hidden, time)
        both = weights["local"] * weights["global"][:, None]
        return sum(both[..., e, None] * expert(hidden, context) for e, expert in enumerate(self.experts))  # type: ignore[return-value]


class EmotionBlock(nn.Module):
    """Self-attention and feed-forward, then the emotion experts."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.own, self.norm, self.emotion = Block(hidden, causal=False), nn.LayerNorm(hidden), EmotionExperts(hidden)

    def forward(self, hidden: Tensor, context: Tensor, time: Tensor) -> Tensor:
        """(B, S, H) → (B, S, H)"""
        hidden = self.own(hidden)
        return hidden + self.emotion(self.norm(hidden), context, time)


class Portrait(nn.Module):
    """A denoiser of patches."""

    def __init__(self, hidden: int, layers: int, channels: int) -> None:
        super().__init__()
        self.hidden, self.channels = hidden, channels
        self.config = SimpleNamespace(model_type="moee", in_channels=channels, patch_size=2)
        self.embed, self.out = nn.Conv2d(channels, hidden, 2, 2), nn.Linear(hidden, 4 * channels)
        self.time = feed_forward(hidden)
        self.blocks = nn.ModuleList(EmotionBlock(hidden) for _ in range(layers))

    def forward(self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Denoised:
        """(B, C, height, width) noisy latents, (B,) steps, (B, n, H) an emotion's latents → as much noise."""
        grid = self.embed(hidden_states)
        hidden = grid.flatten(2).transpose(1, 2) + places(grid.shape[2] * grid.shape[3], self.hidden).to(grid)
        wave = timestep[:, None] * places(2, self.hidden).to(grid)[1]
        time = self.time(torch.cat((wave.sin()[:, ::2], wave.cos()[:, ::2]), -1))
        for block in self.blocks:
            hidden = block(hidden + time[:, None], encoder_hidden_states, time)
        made = self.out(hidden).transpose(1, 2).reshape(len(hidden), self.channels * 4, *grid.shape[2:])
        return Denoised(nn.functional.pixel_shuffle(made, 2))


def build(seed: int = 0, layers: int = 2, hidden: int = 32, channels: int = 4) -> nn.Module:
    """A tiny denoiser."""
    return seeded(lambda: Portrait(hidden, layers, channels), seed)


def example(model: Any, batch: int = 3, places: int = 16, seed: int = 0) -> dict[str, Any]:
    """Noise of about `places` patches, a step each, and an emotion's latents."""
    random = torch.Generator().manual_seed(seed)
    side = 2 * max(1, round(places**0.5))
    return {
        "hidden_states": torch.randn(batch, model.channels, side, side, generator=random),
        "timestep": torch.linspace(10, 900, batch),
        "encoder_hidden_states": torch.randn(batch, 4, model.hidden, generator=random),
    }
