"""LIMoE (Mustafa et al. 2022, arXiv 2206.02770): one tower for pictures and texts, one expert a token, contrastive training.

Patches and words have projections of their own and then the same layers; attention is within a picture or a text. In every
other layer all tokens of a batch, of both modalities, compete for the experts' places: top-1 of a softmax, weight = its
probability, batch priority routing (tokens of large probability come first, whatever their modality). Beside the contrastive
loss there are two entropies for each modality (section 2.2): local, the mean entropy of a token's probabilities, and global,
max(0, τ - entropy of the mean probabilities) with τ = log of how many experts a modality is to use at least. No code of it was
published; the two-tower relative in google-research/vmoe was not followed. The losses' weight here (0.04) is our choice.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..language._parts_dispatch import BufferedBlock, BufferGate, Placed
from ..language._parts_text import VOCABULARY, Attention, Block, places, seeded, text_example

READS = "other"  # pictures and texts at once: see `example`
MODALITIES = ("image", "text")


@dataclass
class Matched:
    """logits: (B, B) picture by text. image, text: (B, H) of length 1. losses: local and global entropies by modality."""

    logits: Tensor
    image: Tensor
    text: Tensor
    losses: dict[str, Tensor]
    loss: Tensor | None = None


class Apart(nn.Module):
    """Attention that keeps the first `patches` places and the rest apart, with the same weights."""

    def __init__(self, hidden: int, patches: int) -> None:
        super().__init__()
        self.attention, self.patches = Attention(hidden, 4, causal=False), patches

    def forward(self, hidden: Tensor, keep: Tensor) -> Tensor:
        """(B, P + S, H) → (B, P + S, H)"""
        parts = ((hidden[:, some], keep[:, some]) for some in (slice(self.patches), slice(self.patches, None)))
        return torch.cat([self.attention(*part) for part in parts], 1)


class OneTower(nn.Module):
    """The model."""

    def __init__(self, hidden: int, layers: int, gates: dict[str, Any], config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.patches = config, (config.image_size // config.patch_size) ** 2
        self.pixels = nn.Conv2d(config.num_channels, hidden, config.patch_size, config.patch_size)
        self.words = nn.Embedding(config.vocab_size, hidden)
        self.layers = nn.ModuleList(self._layer(number, hidden, gates) for number in range(layers))
        self.norm, self.heads = nn.LayerNorm(hidden), nn.ModuleDict({m: nn.Linear(hidden, hidden) for m in MODALITIES})
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def _layer(self, number: int, hidden: int, gates: dict[str, Any]) -> nn.Module:
        if not number % 2:
            block = Block(hidden)
            block.attention = Apart(hidden, self.patches)  # type: ignore[assignment]
            return block
        gate = BufferGate(hidden, top_k=1, priority=True, normalized=False, **gates)
        return BufferedBlock(Apart(hidden, self.patches), gate, hidden, together=True)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, return_loss: bool = False
    ) -> Matched:
        """(B, C, h, w) pictures and (B, P + S) ids: `image_token_id` for each of the P patches, then those of the text."""
        seen = self.pixels(pixel_values).flatten(2).transpose(1, 2)
        read = self.words(input_ids[:, self.patches :])
        hidden = torch.cat([part + places(part.shape[1], part.shape[2]).to(part) for part in (seen, read)], 1)
        keep = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
        for layer in self.layers:
            hidden = layer(hidden, keep)
        hidden = self.norm(hidden)
        image, text = (self._pooled(m, hidden[:, s], keep[:, s]) for m, s in self._parts())
        logits, losses = image @ text.T * self.scale.exp(), self._entropies(keep)
        return Matched(logits, image, text, losses, self._loss(logits, losses) if return_loss else None)

    def _parts(self) -> list[tuple[str, slice]]:
        return [("image", slice(self.patches)), ("text", slice(self.patches, None))]

    def _pooled(self, modality: str, hidden: Tensor, keep: Tensor) -> Tensor:
        mean = (hidden * keep[..., None]).sum(1) / keep.sum(1, keepdim=True).clamp(min=1)
        return F.normalize(self.heads[modality](mean), dim=-1)

    def _entropies(self, keep: Tensor) -> dict[str, Tensor]:
        """The mean over mixtures of both entropies of both modalities."""
        placed = [layer.mixture.said() for layer in self.layers if isinstance(layer, BufferedBlock)]
        found: dict[str, Tensor] = {}
        for modality, some in self._parts():
            each = [entropies(p, keep, some, self.config.experts_at_least) for p in placed]
            for name, values in zip(("local", "global"), zip(*each)):
                found[f"{name}_{modality}"] = torch.stack(values).mean()
        return found

    def _loss(self, logits: Tensor, losses: dict[str, Tensor]) -> Tensor:
        own = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return contrast + 0.04 * torch.stack(list(losses.values())).sum()


def entropies(placed: Placed, keep: Tensor, some: slice, at_least: int) -> tuple[Tensor, Tensor]:
    """Local entropy, and how far the global one is below log(at_least), of one modality's tokens."""
    chances = placed.probabilities.reshape(*keep.shape, -1)[:, some][keep[:, some]]
    mean = chances.mean(0)
    local = torch.special.entr(chances).sum(-1).mean()
    return local, F.relu(math.log(at_least) - torch.special.entr(mean).sum())


def build(
    seed: int = 0,
    layers: int = 4,
    hidden: int = 32,
    count: int = 8,
    capacity: float = 1.0,
    image_size: int = 16,
    patch_size: int = 4,
    channels: int = 3,
    at_least: int = 4,
    vocabulary: int = VOCABULARY,
) -> nn.Module:
    """A tiny tower. `capacity`: the factor; `at_least`: how many experts a modality is to use."""
    config = SimpleNamespace(
        model_type="limoe", vocab_size=vocabulary, image_size=image_size, patch_size=patch_size, num_channels=channels,
        experts_at_least=at_least, image_token_id=vocabulary - 1,
    )  # fmt: skip
    return seeded(lambda: OneTower(hidden, layers, {"count": count, "factor": capacity}, config), seed)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Noise for pictures; for each patch the id that stands for one, then `places` random ids."""
    c, random = model.config, torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch, c.num_channels, c.image_size, c.image_size, generator=random)
    texts = text_example(c.vocab_size - 1, batch, places, seed)["input_ids"]
    ids = torch.cat((texts.new_full((batch, model.patches), c.image_token_id), texts), 1)
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
