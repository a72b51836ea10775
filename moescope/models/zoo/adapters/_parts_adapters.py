"""What adapter mixtures and Megatron's twin are made of: a tiny causal language model with projections to put adapters on."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Output:
    """What the models return."""

    logits: Tensor
    loss: Tensor | None = None


class Attention(nn.Module):
    """Causal self-attention with the projections' usual names."""

    def __init__(self, hidden: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(hidden, hidden, bias=False))

    def forward(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        """(B, S, H), (B, 1, S, S) bool → (B, S, H)"""
        batch, places, width = hidden.shape
        projected = (self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden))
        q, k, v = (t.view(batch, places, self.heads, -1).transpose(1, 2) for t in projected)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, places, width))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """down(silu(gate x) · up x)"""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(hidden, inner, bias=False), nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., H)"""
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Pre-norm attention and feed-forward; a feed-forward that returns several things is taken by its first."""

    def __init__(self, hidden: int, ffn: nn.Module) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.self_attn, self.mlp = Attention(hidden), ffn

    def forward(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        """(B, S, H)"""
        hidden = hidden + self.self_attn(self.attention_norm(hidden), allowed)
        made = self.mlp(self.ffn_norm(hidden))
        return hidden + (made[0] if isinstance(made, tuple) else made)  # type: ignore[no-any-return]


class CausalLM(nn.Module):
    """Token ids to logits; `ffn(layer)` makes each layer's feed-forward."""

    def __init__(self, name: str, layers: int, hidden: int, vocabulary: int, ffn: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            model_type=name, vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, max_position_embeddings=256
        )
        self.embed = nn.Embedding(vocabulary, hidden)
        self.position = nn.Embedding(256, hidden)
        self.layers = nn.ModuleList(Layer(hidden, ffn(number)) for number in range(layers))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Output:
        """(B, S) ids, (B, S) 1 for tokens and 0 for padding → logits (B, S, V), and the next token's mean loss for labels."""
        hidden = self.embed(input_ids) + self.position.weight[: input_ids.shape[1]]
        allowed = causal(input_ids, attention_mask)
        for layer in self.layers:
            hidden = layer(hidden, allowed)
        return self.said(self.head(self.norm(hidden)), labels)

    @staticmethod
    def said(logits: Tensor, labels: Tensor | None) -> Output:
        """Logits, and their loss where there are labels (-100: none)."""
        if labels is None:
            return Output(logits)
        return Output(logits, functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))


def causal(input_ids: Tensor, mask: Tensor | None) -> Tensor:
    """(B, 1, S, S) which place may look at which; every place at itself, so that padding has numbers too."""
    places = input_ids.shape[1]
    allowed = torch.ones(places, places, dtype=torch.bool, device=input_ids.device).tril()[None, None]
    if mask is None:
        return allowed
    own = torch.eye(places, dtype=torch.bool, device=input_ids.device)
    return (allowed & mask.bool()[:, None, None]) | own


def random_weights(model: nn.Module, scale: float = 2.0) -> nn.Module:
    """Evaluation mode; projections large enough that decisions differ from token to token."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return model.eval()


def example_text(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids, the second row two places shorter."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, places, dtype=torch.long)
    if batch > 1 and places > 2:
        mask[1, -2:] = 0
    ids = torch.randint(1, model.config.vocab_size, (batch, places), generator=generator)
    return {"input_ids": ids, "attention_mask": mask}
