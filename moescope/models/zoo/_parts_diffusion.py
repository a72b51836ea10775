"""What the small denoisers share: patches, timestep and class, transformer blocks, experts, and a sampling loop.

The frame is DiT's (Peebles and Xie 2022, arXiv 2212.09748, section 3): adaLN blocks over patches, conditioned on timestep and
class. Where DiT begins with zeros (adaLN-Zero, last layer) the weights here are random, so that every part is seen at work.
"""

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 1000  # timesteps run from STEPS (noise) to 0 (image)


class Expert(nn.Module):
    """SwiGLU feed-forward (..., H) → (..., H)."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(hidden, inner, bias=False), nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Each row on its own."""
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Attention(nn.Module):
    """Multi-head self-attention over (B, S, H); `mask` (B, S) or (B, S, S) bool, True where a place may be looked at."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H)."""
        batch, places, size = hidden.shape
        q, k, v = self.qkv(hidden).view(batch, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if mask is not None:
            mask = mask[:, None] if mask.dim() == 3 else mask[:, None, None]
        made = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(made.transpose(1, 2).reshape(batch, places, size))


class Block(nn.Module):
    """A DiT block whose feed-forward is `moe(hidden (B, S, H), condition (B, H))`."""

    def __init__(self, hidden: int, heads: int, moe: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.attention, self.moe = Attention(hidden, heads), moe
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(B, S, H) → (B, S, H)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, -1)
        hidden = hidden + gate1 * self.attention(self.norm1(hidden) * (1 + scale1) + shift1)
        return hidden + gate2 * self.moe(self.norm2(hidden) * (1 + scale2) + shift2, condition)


class PoolMoE(nn.Module):
    """Experts on the tokens that a pool gave them.

    `router(hidden (B, S, H))` returns (chosen (B, S, E) bool, weights (B, S, E), logits (B, S, E), places per expert and pool
    or None, threshold () or None). `pool_axes`: which of batch (B), places (L) and experts (E) compete for one top-k.
    """

    def __init__(self, router: nn.Module, pool_axes: str, hidden: int, inner: int, experts: int) -> None:
        super().__init__()
        self.router, self.pool_axes = router, pool_axes
        self.experts = nn.ModuleList(Expert(hidden, inner) for _ in range(experts))

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(B, S, H) → (B, S, H); the condition is in the tokens already."""
        rows = hidden.flatten(0, -2)
        chosen, weights = (t.flatten(0, -2) for t in self.router(hidden)[:2])
        made = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token = chosen[:, number].nonzero().flatten()
            made.index_add_(0, token, expert(rows[token]) * weights[token, number, None])
        return made.view_as(hidden)


class Condition(nn.Module):
    """Timestep (B,) and class (B,) → (B, H); the last class stands for none (classifier-free guidance)."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.label = nn.Embedding(classes + 1, hidden)

    def forward(self, timestep: Tensor, labels: Tensor | None, apart: bool = False) -> Tensor:
        """Their sum; `apart`: (B, 2 H), with the timestep alone before it."""
        if labels is None:
            labels = timestep.new_full(timestep.shape, self.label.num_embeddings - 1)
        timed = self.time(waves(timestep, 64).to(self.label.weight))
        both = timed + self.label(labels.long())
        return torch.cat([timed, both], -1) if apart else both


class DiT(nn.Module):
    """Patches → `blocks` → patches. `blocks`: modules called with (hidden (B, S, H), condition (B, H)).

    `apart`: they get the timestep's embedding alone before the condition, (B, 2 H).
    """

    def __init__(self, name: str, blocks: list[nn.Module], hidden: int, *, channels: int = 3, patch: int = 4, size: int = 16,
                 classes: int = 10, apart: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.apart = apart
        self.config = SimpleNamespace(
            model_type=name, hidden_size=hidden, num_channels=channels, in_channels=channels, patch_size=patch,
            sample_size=size, num_classes=classes,
        )  # fmt: skip
        self.embed, self.condition = nn.Linear(channels * patch * patch, hidden), Condition(hidden, classes)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.head = nn.Linear(hidden, channels * patch * patch)

    def forward(self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
        """(B, C, H, W), (B,), (B,) → an object whose `sample` (B, C, H, W) is the velocity from image to noise."""
        height, width = hidden_states.shape[-2:]
        patch = self.config.patch_size
        condition = self.condition(timestep, class_labels, self.apart)
        hidden = self.embed(F.unfold(hidden_states, patch, stride=patch).transpose(1, 2))
        hidden = hidden + grid(height // patch, width // patch, hidden.shape[-1]).to(hidden)
        for block in self.blocks:
            hidden = block(hidden, condition)
        made = self.head(self.norm(hidden)).transpose(1, 2)
        return SimpleNamespace(sample=F.fold(made, (height, width), patch, stride=patch))


def waves(places: Tensor, size: int) -> Tensor:
    """(N,) numbers → (N, size) cosines and sines."""
    rates = torch.exp(-math.log(10000) * torch.arange(size // 2, device=places.device) / (size // 2))
    turned = places[:, None].float() * rates
    return torch.cat([turned.cos(), turned.sin()], -1)


def grid(down: int, across: int, size: int) -> Tensor:
    """(down × across, size) fixed encodings of rows and columns."""
    rows, columns = waves(torch.arange(down), size // 2), waves(torch.arange(across), size // 2)
    return torch.cat([rows.repeat_interleave(across, 0), columns.repeat(down, 1)], -1)


def noise(model: nn.Module, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Inputs of one forward: images of about `places` patches of noise at timesteps and classes that differ."""
    config: Any = model.config
    random = torch.Generator().manual_seed(seed)
    down = next(n for n in range(math.isqrt(places), 0, -1) if places % n == 0)
    shape = (batch, config.num_channels, config.patch_size * down, config.patch_size * (places // down))
    return {
        "hidden_states": torch.randn(shape, generator=random),
        "timestep": torch.linspace(STEPS - 50, 50, batch),
        "class_labels": torch.arange(batch) % config.num_classes,
    }


@torch.no_grad()
def denoise(model: nn.Module, sample: Tensor, steps: int = 4, **given: Any) -> Tensor:
    """(B, C, H, W) noise → image in `steps` Euler steps from timestep 1000 to 0, one forward each; `given` goes to each."""
    times = torch.linspace(STEPS, 0, steps + 1)
    for now, later in pairwise(times):
        velocity = model(hidden_states=sample, timestep=now.expand(len(sample)), **given).sample
        sample = sample + velocity * float(later - now) / STEPS
    return sample
