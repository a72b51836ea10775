"""VLMo (Bao and others 2021, arXiv 2111.02358): modality experts without a router, after attention that all share.

Section 3.2 and `vlmo/vlmo/modules/multiway_transformer.py` of github.com/microsoft/unilm (Block.forward): text alone goes
through text experts, an image alone through image experts; of a pair the first `text_places` go through the text expert and
the others through the image expert, and in the last layers all go through a vision-language expert. Each expert has its own
norm, and a layer scale. Left out: relative positions, and the heads of its pretraining; one head says whether text and image
match.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._parts_diffusion import Attention, grid, waves
from ._parts_text import seeded

READS = "other"
NAMES = ("text", "image", "vision-language")


class ModalityExperts(nn.Module):
    """Experts by what a place is: 0 text, 1 image, 2 (if there is one) both."""

    kind, decides_by = "static", "route"

    def __init__(self, hidden: int, experts: int, text_places: int) -> None:
        super().__init__()
        self.text_places, self.expert_names = text_places, dict(enumerate(NAMES[:experts]))
        self.experts = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))
            for _ in range(experts)
        )

    def route(self, hidden: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        """(B, S, H) and text | image | pair → experts (B, S, 1), weights of 1 (B, S, 1)."""
        place = torch.arange(hidden.shape[1], device=hidden.device)
        if modality == "pair":
            number = torch.full_like(place, 2) if len(self.experts) > 2 else (place >= self.text_places).long()
        else:
            number = torch.full_like(place, int(modality == "image"))
        number = number[None, :, None].expand(len(hidden), -1, 1)
        return number, torch.ones_like(number, dtype=hidden.dtype)

    def forward(self, hidden: Tensor, modality: str) -> Tensor:
        """(B, S, H) → (B, S, H)."""
        number, weight = self.route(hidden, modality)
        made = torch.zeros_like(hidden)
        for expert, module in enumerate(self.experts):
            row = (number == expert).squeeze(-1)
            made[row] = module(hidden[row]) * weight[row]
        return made


class Block(nn.Module):
    """Attention over all places, then the experts; both scaled before they are added."""

    def __init__(self, hidden: int, heads: int, ffn: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention, self.ffn = nn.LayerNorm(hidden), Attention(hidden, heads), ffn
        self.scale1, self.scale2 = (nn.Parameter(torch.full((hidden,), 0.5)) for _ in range(2))

    def forward(self, hidden: Tensor, mask: Tensor, modality: str) -> Tensor:
        """(B, S, H), (B, S) → (B, S, H)."""
        hidden = hidden + self.scale1 * self.attention(self.norm(hidden), mask)
        return hidden + self.scale2 * self.ffn(hidden, modality)


class VLMo(nn.Module):
    """Text, images, or pairs of them."""

    def __init__(self, blocks: list[nn.Module], hidden: int, vocabulary: int, text_places: int, patch: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="vlmo", vocab_size=vocabulary, hidden_size=hidden, max_text_len=text_places)
        self.patch, self.embed = patch, nn.Embedding(vocabulary, hidden)
        self.look, self.kinds = nn.Linear(3 * patch * patch, hidden), nn.Embedding(2, hidden)
        self.blocks, self.norm, self.head = nn.ModuleList(blocks), nn.LayerNorm(hidden), nn.Linear(hidden, 2)

    def forward(
        self, input_ids: Tensor | None = None, image: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> SimpleNamespace:
        """Ids (B, text_places at most; exactly, in a pair) and images (B, 3, H, W) → `logits` (B, 2), from the first place."""
        parts, masks = [], []
        if input_ids is not None:
            text = self.embed(input_ids) + waves(torch.arange(input_ids.shape[1]), self.embed.embedding_dim).to(
                self.embed.weight
            )
            parts.append(text + self.kinds.weight[0])
            masks.append(torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool())
        if image is not None:
            seen = self.look(F.unfold(image, self.patch, stride=self.patch).transpose(1, 2))
            where = grid(image.shape[2] // self.patch, image.shape[3] // self.patch, seen.shape[-1])
            parts.append(seen + where.to(seen) + self.kinds.weight[1])
            masks.append(torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device))
        modality = "pair" if len(parts) > 1 else "image" if input_ids is None else "text"
        hidden, mask = torch.cat(parts, 1), torch.cat(masks, 1)
        for block in self.blocks:
            hidden = block(hidden, mask, modality)
        return SimpleNamespace(logits=self.head(self.norm(hidden[:, 0])))


def build(seed: int = 0, *, hidden: int = 32, layers: int = 3, joint: int = 1, heads: int = 4, vocabulary: int = 512,
          text_places: int = 8, patch: int = 4) -> VLMo:  # fmt: skip
    """A tiny one; `joint`: how many of the last layers have the vision-language expert."""

    def make() -> nn.Module:
        counts = [3 if layer >= layers - joint else 2 for layer in range(layers)]
        blocks: list[nn.Module] = [Block(hidden, heads, ModalityExperts(hidden, n, text_places)) for n in counts]
        return VLMo(blocks, hidden, vocabulary, text_places, patch)

    return seeded(make, seed)


def example(model: VLMo, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Pairs of a text that fills its places and an image of the rest of `places`, or four patches."""
    random = torch.Generator().manual_seed(seed)
    text = model.config.max_text_len
    ids = torch.randint(model.config.vocab_size, (batch, text), generator=random)
    across = max(places - text, 4)
    return {"input_ids": ids, "image": torch.randn(batch, 3, model.patch, model.patch * across, generator=random)}
