"""What small language models of the zoo are made of: attention, blocks, and a stack of them that reads token ids."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 512
Module = TypeVar("Module", bound=nn.Module)


@dataclass
class TextOutput:
    """logits: (B, S, V). loss: (), of the next token, when labels are given; with the model's own extra loss."""

    logits: Tensor
    loss: Tensor | None = None


def seeded(make: Callable[[], Module], seed: int) -> Module:
    """The model that `make` gives with random weights of this seed, in evaluation mode; the caller's random state is kept."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def text_example(vocabulary: int, batch: int, places: int, seed: int) -> dict[str, Any]:
    """Random ids (batch, places) and a mask of all places."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (batch, places), generator=random)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Attention(nn.Module):
    """Self-attention over places, causal unless told otherwise."""

    def __init__(self, hidden: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.joint, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H); `keep` (B, S) bool: the places that may be looked at (a place always sees itself)."""
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.joint(hidden).chunk(3, -1))
        seen = torch.ones(hidden.shape[1], hidden.shape[1], dtype=torch.bool, device=hidden.device)
        seen = seen.tril() if self.causal else seen
        if keep is not None:
            itself = torch.eye(hidden.shape[1], dtype=torch.bool, device=hidden.device)
            seen = (seen & keep[:, None, :] | itself)[:, None]
        made = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.out(made.transpose(1, 2).flatten(2))


def feed_forward(hidden: int, wide: int | None = None) -> nn.Sequential:
    """Two linear maps with a GELU between them."""
    return nn.Sequential(nn.Linear(hidden, wide or 2 * hidden), nn.GELU(), nn.Linear(wide or 2 * hidden, hidden))


class Block(nn.Module):
    """A pre-norm Transformer block; `ffn` may be any module (..., H) → (..., H)."""

    def __init__(self, hidden: int, heads: int = 4, ffn: nn.Module | None = None, causal: bool = True) -> None:
        super().__init__()
        self.norm_attention, self.norm_ffn = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads, causal)
        self.ffn = feed_forward(hidden) if ffn is None else ffn

    def forward(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H) with the residual."""
        hidden = hidden + self.attention(self.norm_attention(hidden), keep)
        return hidden + self.ffn(self.norm_ffn(hidden))


class Language(nn.Module):
    """Token ids through `layers`, each called as layer(hidden (B, S, H), keep (B, S) bool or None) → hidden."""

    def __init__(self, layers: list[nn.Module], hidden: int, vocabulary: int, name: str, **settings: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocabulary, hidden_size=hidden, model_type=name, **settings)
        self.embed = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(layers)
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> TextOutput:
        """(B, S) ids → logits (B, S, V)."""
        keep = None if attention_mask is None else attention_mask.bool()
        hidden = self.embed(input_ids) + places(input_ids.shape[1], self.config.hidden_size).to(self.embed.weight)
        logits = self.head(self.norm(self.run(hidden, keep)))
        return TextOutput(logits, None if labels is None else next_token(logits, labels) + self.extra_loss())

    def run(self, hidden: Tensor, keep: Tensor | None) -> Tensor:
        """All layers, one after the other."""
        for layer in self.layers:
            hidden = layer(hidden, keep)
        return hidden

    def extra_loss(self) -> Tensor | float:
        """What this forward adds to the loss: the layers' own `loss`, where they have one; taken from them."""
        return sum((vars(m).pop("loss") for m in self.modules() if torch.is_tensor(vars(m).get("loss"))), start=0.0)


def places(count: int, hidden: int) -> Tensor:
    """(count, H) sines and cosines of places (Vaswani et al. 2017, 3.5)."""
    rate = torch.exp(torch.arange(0, hidden, 2) * (-math.log(10000.0) / hidden))
    angle = torch.arange(count)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)


def next_token(logits: Tensor, labels: Tensor) -> Tensor:
    """() mean cross-entropy of the next token; labels (B, S), -100 where none is meant."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
