"""V-MoE: a vision transformer some of whose layers are experts (vmoe/nn/vit_moe.py, VisionTransformerMoe)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import InputError
from .checkpoints.saving import load, save
from .config import VMoEConfig
from .initial import lecun_normal_
from .layers import Block, MapHead, MoE
from .losses import auxiliary_losses
from .norm import LayerNorm
from .positions import Positions
from .routing import AnyRouting
from .switching import with_routing


@dataclass(frozen=True)
class VMoEOutput:
    """What one forward gives.

    `logits` (N, classes), or (N, hidden) without a head; `auxiliary_loss` a scalar: mean over groups of the sum over
    layers, as the authors add it to the task's loss; `losses[layer]` its parts, each (G,); `routings[layer]` decisions.
    """

    logits: torch.Tensor
    auxiliary_loss: torch.Tensor
    losses: dict[int, dict[str, torch.Tensor]]
    routings: dict[int, AnyRouting]


class VMoE(nn.Module):
    """Patches, blocks, head. Module paths: `layers.<i>.mlp.router` and `layers.<i>.mlp.experts`."""

    def __init__(self, config: VMoEConfig) -> None:
        """Begin with flax's distributions, drawn from torch's global generator."""
        super().__init__()
        self.config, hidden, encoder = config, config.hidden_size, config.encoder
        self.embedding = nn.Conv2d(config.channels, hidden, config.patch_size, stride=config.patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, hidden)) if config.classifier == "token" else None
        self.positions = Positions(config)
        tokens, sparse = config.tokens_per_image, encoder.moe.layers
        self.layers = nn.ModuleList(Block(hidden, encoder, i in sparse, tokens) for i in range(encoder.num_layers))
        self.norm = LayerNorm(hidden)
        self.pool = MapHead(hidden, encoder) if config.classifier == "map" else None
        self.pre_logits = nn.Linear(hidden, config.representation_size) if config.representation_size else None
        self.head = nn.Linear(config.representation_size or hidden, config.num_classes) if config.num_classes else None
        self._begin()

    def forward(
        self,
        pixel_values: torch.Tensor,
        noise: Mapping[int, torch.Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> VMoEOutput:
        """Classify images, float32 (N, C, H, W); (N, H, W, C) is taken too where only the last axis can be C.

        `noise[layer]` (G, S, E) is added to that layer's router logits as it is. Otherwise routers draw their own
        noise from `generator` when they are not deterministic, which they are in evaluation.
        """
        tokens, grid = self._patches(pixel_values)
        tokens = self.positions(tokens, grid)
        routings: dict[int, AnyRouting] = {}
        for number, layer in enumerate(self.layers):
            given = (noise or {}).get(number)
            tokens, routing = layer(tokens, generator if given is None else given)
            if routing is not None:
                routings[number] = routing
        logits = self._classify(self.norm(tokens))
        losses = {number: auxiliary_losses(r, self.config.encoder.moe.router) for number, r in routings.items()}
        total = sum((parts["auxiliary_loss"].mean() for parts in losses.values()), logits.new_zeros(()))
        return VMoEOutput(logits, total, losses, routings)

    def set_routing(self, **options: Any) -> "VMoE":
        """Switch routing on the live model: capacity_factor or capacity, batch_priority, group_size, and others.

        The full list by kind of router is `switching.SWITCHES`. Decisions change from the next forward on.
        """
        self.config = with_routing(self.config, **options)
        for module in self.modules():
            if isinstance(module, MoE):
                module.configure(self.config.encoder.moe)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into `folder`, which is made if needed."""
        save(self, self.config.to_dict(), Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "VMoE":
        """The model that `save_pretrained` wrote, ready for evaluation; InputError if the files do not fit."""
        config, arrays = load(Path(folder))
        return cls.from_arrays(VMoEConfig.from_dict(config), arrays)

    @classmethod
    def from_arrays(cls, config: VMoEConfig, arrays: Mapping[str, torch.Tensor]) -> "VMoE":
        """A model with these parameters by our names, in evaluation mode; InputError if any is missing or extra."""
        with torch.device("meta"):
            model = cls(config)
        try:
            model.load_state_dict(dict(arrays), strict=True, assign=True)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise InputError(f"the parameters do not fit the config: {detail}") from error
        return model.eval()

    def _patches(self, pixels: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        patches = self.embedding(channels_first(pixels, self.config.channels).to(self.embedding.weight.dtype))
        grid = patches.shape[2], patches.shape[3]
        tokens = patches.flatten(2).transpose(1, 2)
        return (tokens if self.cls is None else torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)), grid

    def _classify(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            pooled = self.pool(tokens)
        else:
            pooled = tokens.mean(1) if self.config.classifier == "gap" else tokens[:, 0]
        pooled = pooled if self.pre_logits is None else torch.tanh(self.pre_logits(pooled))
        return pooled if self.head is None else self.head(pooled)

    def _begin(self) -> None:
        lecun_normal_(self.embedding.weight, self.embedding.weight[0].numel())
        nn.init.zeros_(self.embedding.bias)
        for layer, bias in ((self.pre_logits, 0.0), (self.head, self.config.head_bias_init)):
            if layer is not None:
                lecun_normal_(layer.weight, layer.in_features)
                nn.init.constant_(layer.bias, bias)
        if self.head is not None and self.config.head_kernel_zero_init:
            nn.init.zeros_(self.head.weight)


def channels_first(pixels: torch.Tensor, channels: int) -> torch.Tensor:
    """(N, C, H, W) from either layout, read off which axis has `channels`; where both have, C comes first."""
    pixels = torch.as_tensor(pixels)
    if pixels.ndim == 4 and pixels.shape[1] == channels:
        return pixels
    if pixels.ndim == 4 and pixels.shape[3] == channels:
        return pixels.permute(0, 3, 1, 2)
    raise InputError(f"pixel_values is {tuple(pixels.shape)}: it must be (N, {channels}, H, W) or (N, H, W, {channels}).")
