"""A few made-up tokens or pixels, for the proof of a model that comes without inputs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..models import zoo
from ..routers.calls import signature
from ..weights import home, precision


def example_inputs(model: nn.Module, places: int = 8) -> dict[str, Any]:
    """Keyword arguments for one small forward: two rows of `places` random ids, or two random images.

    InputError when the model's forward takes neither; then the caller gives inputs of its own.
    """
    if (own := zoo.example_of(model)) is not None:
        return own
    parameters = signature(model).parameters
    device = home(model)
    config = getattr(model, "config", None)
    random = torch.Generator().manual_seed(0)
    inputs: dict[str, Any] = {}
    if "input_ids" in parameters:
        size = _vocabulary(model, config)
        inputs["input_ids"] = torch.randint(min(3, size - 1), size, (2, places), generator=random).to(device)
    if "decoder_input_ids" in parameters:
        inputs["decoder_input_ids"] = inputs["input_ids"].flip(-1)
    if not inputs and "pixel_values" in parameters:
        inputs["pixel_values"] = _pixels(model, config, random).to(device, precision(model))
    if not inputs:
        raise InputError(
            f"{type(model).__name__}.forward takes neither input_ids nor pixel_values, so moescope cannot make inputs to "
            "prove it with; give some: Tracer(model, store, inputs={...})"
        )
    return inputs | _kinds(parameters, inputs)


def _kinds(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What tells experts apart beside the tokens: text and image places (ERNIE 4.5 VL), data sets (ViTPose)."""
    kinds: dict[str, Any] = {}
    if "moe_mm_token_type_ids" in parameters and "input_ids" in inputs:
        kinds["moe_mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"], dtype=torch.int32)
        kinds["moe_mm_token_type_ids"][:, inputs["input_ids"].shape[1] // 2 :] = 1
    if "dataset_index" in parameters and "pixel_values" in inputs:
        kinds["dataset_index"] = torch.zeros(
            len(inputs["pixel_values"]), dtype=torch.long, device=inputs["pixel_values"].device
        )
    return kinds


def _vocabulary(model: nn.Module, config: Any) -> int:
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    size = getattr(embedding, "num_embeddings", None) or getattr(config, "vocab_size", None)
    return int(size) if isinstance(size, int) else 100


def _pixels(model: nn.Module, config: Any, random: torch.Generator) -> torch.Tensor:
    size = getattr(config, "image_size", None) or 32
    high, wide = (size, size) if isinstance(size, int) else size
    channels = getattr(config, "num_channels", None) or getattr(config, "channels", 3)
    return torch.randn(max(2, images_per_group(model)), channels, high, wide, generator=random)


def images_per_group(model: nn.Module) -> int:
    """Images that a V-MoE routes together (eight unless set otherwise); 1 for every other model."""
    tokens = getattr(getattr(model, "config", None), "tokens_per_image", None)
    sizes = [module.group_size for module in model.modules() if hasattr(module, "group_size")]
    if not sizes or not tokens or sizes[0] == "batch":
        return 1
    return 8 if sizes[0] is None else max(1, int(sizes[0]) // tokens)
