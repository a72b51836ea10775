"""The blocks of the encoder: attention, a dense perceptron or experts (vmoe/nn/vit_moe.py, EncoderBlock)."""

import math

import torch
from torch import nn

from ...errors import InputError
from .config import GROUP_IMAGES, EncoderConfig, GroupSize, MoeConfig
from .experts import Experts
from .initial import dense
from .norm import LayerNorm
from .routers import Noise, build_router
from .routing import AnyRouting


class Attention(nn.Module):
    """Multi-head attention with biases, as flax's MultiHeadDotProductAttention."""

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0, qk_norm: bool = False) -> None:
        """`qk_norm` normalises queries and keys of every head, without bias."""
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.query, self.key, self.value, self.out = (dense(hidden, hidden) for _ in range(4))
        norms = (LayerNorm(hidden // heads, bias=False) if qk_norm else nn.Identity() for _ in range(2))
        self.query_norm, self.key_norm = norms

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(N, Q, hidden) from queries (N, Q, hidden) that look at tokens (N, T, hidden)."""
        q, k = self.query_norm(self._split(self.query(queries))), self.key_norm(self._split(self.key(tokens)))
        shares = torch.softmax((q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2), dim=-1)
        seen = self.dropout(shares) @ self._split(self.value(tokens))
        return self.out(seen.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Dense, gelu (tanh form), dense."""

    def __init__(self, hidden: int, mlp_dim: int, dropout: float = 0.0) -> None:
        """`dropout` follows both layers."""
        super().__init__()
        self.up, self.down = dense(hidden, mlp_dim, 1e-6), dense(mlp_dim, hidden, 1e-6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., hidden)."""
        inner = self.dropout(nn.functional.gelu(self.up(tokens), approximate="tanh"))
        return self.dropout(self.down(inner))


class MoE(nn.Module):
    """A router and its experts over groups of tokens.

    Groups are cut from all tokens of the forward in order, whole images after each other, and routed independently.
    Like the authors' code, this refuses a number of tokens that is no multiple of the group size.
    """

    def __init__(self, hidden: int, encoder: EncoderConfig, tokens_per_image: int | None) -> None:
        """`tokens_per_image` None where the image size is not fixed."""
        super().__init__()
        moe = encoder.moe
        rate = encoder.dropout_rate if moe.dropout_rate is None else moe.dropout_rate
        mlp_dim = moe.mlp_dim or encoder.mlp_dim
        self.router = build_router(moe, hidden, _known_size(moe.group_size, tokens_per_image))
        self.experts = Experts(hidden, mlp_dim, moe.num_experts, rate, moe.split_rngs)
        self.configure(moe)

    def configure(self, moe: MoeConfig) -> None:
        """Take other routing options; parameters stay."""
        self.router.config, self.group_size = moe.router, moe.group_size
        self.experts.bfloat16 = moe.router.dispatcher.bfloat16

    def forward(self, tokens: torch.Tensor, noise: Noise = None) -> tuple[torch.Tensor, AnyRouting]:
        """Output (N, T, hidden) and the decision, from tokens (N, T, hidden)."""
        groups = self.grouped(tokens)
        routing = self.router(groups, noise=noise)
        return self.experts(groups, routing).view_as(tokens), routing

    def grouped(self, tokens: torch.Tensor) -> torch.Tensor:
        """(G, S, hidden) from (N, T, hidden); InputError unless G groups come out even."""
        images, length, hidden = tokens.shape
        size = _size(self.group_size, images, length)
        if images * length % size:
            raise InputError(
                f"{images} images of {length} tokens do not fill groups of {size} tokens ({size / length:g} images), "
                f"which V-MoE routes together: give a multiple, or set_routing(group_size='batch') to route all of "
                f"one forward in one group."
            )
        return tokens.reshape(-1, size, hidden)


class Block(nn.Module):
    """Pre-norm encoder block; `mlp` is dense or experts."""

    def __init__(self, hidden: int, encoder: EncoderConfig, sparse: bool, tokens_per_image: int | None) -> None:
        """`sparse` blocks have experts."""
        super().__init__()
        self.norm_1, self.norm_2 = LayerNorm(hidden), LayerNorm(hidden)
        heads, rate = encoder.num_heads, encoder.attention_dropout_rate
        self.attention = Attention(hidden, heads, rate, encoder.attention_qk_norm)
        self.dropout = nn.Dropout(encoder.dropout_rate)
        dense_mlp = (hidden, encoder.mlp_dim, encoder.dropout_rate)
        self.mlp = MoE(hidden, encoder, tokens_per_image) if sparse else Mlp(*dense_mlp)

    def forward(self, tokens: torch.Tensor, noise: Noise = None) -> tuple[torch.Tensor, AnyRouting | None]:
        """Tokens (N, T, hidden) after this block, and the decision if it has experts."""
        normed = self.norm_1(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed))
        normed = self.norm_2(tokens)
        if not isinstance(self.mlp, MoE):
            return tokens + self.mlp(normed), None
        mixed, routing = self.mlp(normed, noise)
        return tokens + mixed, routing


class MapHead(nn.Module):
    """Attention pooling (classifier 'map'): a learned probe looks at all tokens; its residual skips the norm."""

    def __init__(self, hidden: int, encoder: EncoderConfig) -> None:
        """`probe` is (1, 1, hidden)."""
        super().__init__()
        self.probe = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, hidden)).unsqueeze(0))
        self.attention = Attention(hidden, encoder.num_heads, qk_norm=encoder.attention_qk_norm)
        self.norm, self.mlp = LayerNorm(hidden), Mlp(hidden, encoder.mlp_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, hidden) from (N, T, hidden)."""
        seen = self.attention(self.probe.expand(len(tokens), -1, -1), tokens)
        return (seen + self.mlp(self.norm(seen)))[:, 0]


def _size(group_size: GroupSize, images: int, length: int) -> int:
    if group_size == "batch":
        return images * length
    return length * GROUP_IMAGES if group_size is None else group_size


def _known_size(group_size: GroupSize, length: int | None) -> int | None:
    if isinstance(group_size, int):
        return group_size
    return None if length is None or group_size == "batch" else length * GROUP_IMAGES
