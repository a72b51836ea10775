"""Where a patch is: learned embeddings, sines of row and column, or nothing (EncoderMoe.add_position_emb)."""

import torch
from torch import nn

from ...errors import InputError
from .config import VMoEConfig
from .initial import normal_


class Positions(nn.Module):
    """Adds positions to tokens; learned ones fix the number of tokens."""

    def __init__(self, config: VMoEConfig) -> None:
        """`embedding` (1, T, hidden) is learned, or None."""
        super().__init__()
        options = config.encoder.position_emb or {}
        self.name, self.temperature = options.get("name", "learned"), float(options.get("temperature", 10_000.0))
        if self.name not in ("learned", "none", "sincos2d"):
            raise InputError(f"position_emb {self.name!r} is unknown: it must be 'learned', 'none' or 'sincos2d'.")
        tokens, self.embedding = config.tokens_per_image, None
        if self.name == "learned" and tokens is None:
            raise InputError("learned positions need a fixed image: give the config an image_size.")
        if self.name == "learned":
            self.embedding = nn.Parameter(normal_(torch.empty(1, tokens, config.hidden_size), 0.02))

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Tokens (N, T, hidden) of a grid of (rows, columns) patches, the class token first if there is one."""
        if self.embedding is not None:
            if self.embedding.shape[1] != tokens.shape[1]:
                expected = self.embedding.shape[1]
                raise InputError(f"images of {grid[0]} x {grid[1]} patches make {tokens.shape[1]} tokens, not {expected}.")
            return tokens + self.embedding
        if self.name == "none":
            return tokens
        patches = sines(*grid, tokens.shape[-1], self.temperature).to(tokens)
        return tokens + nn.functional.pad(patches, (0, 0, tokens.shape[1] - len(patches), 0))


def sines(rows: int, columns: int, hidden: int, temperature: float) -> torch.Tensor:
    """(rows * columns, hidden): sine and cosine of the column, then of the row, as in MoCo v3 (arXiv:2104.02057)."""
    if hidden % 4 or hidden < 8:
        raise InputError(f"sincos2d positions need a hidden_size that is a multiple of 4 and at least 8, not {hidden}.")
    y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
    omega = 1.0 / temperature ** (torch.arange(hidden // 4).float() / (hidden // 4 - 1))
    across, down = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=-1)
