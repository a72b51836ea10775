"""Which kernel a model's attention runs through: what is asked for (`--attn`), and what ran."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ..errors import InputError, ModelError

WAYS = {  # and what a class of Transformers says of each
    "eager": None,
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}


def check_attention(asked: str | None, device: torch.device) -> str | None:
    """What was asked for. InputError for a name that is none, and where a package or the device lacks it."""
    if asked is None:
        return None
    if asked not in WAYS:
        raise InputError(f"attention {asked[:80]!r} is not one of {', '.join(WAYS)}")
    if asked == "flash_attention_2":
        if find_spec("flash_attn") is None:
            raise InputError(
                "flash_attention_2 needs the package flash-attn, which is not installed: pip install flash-attn, on a machine "
                "with an NVIDIA GPU, or say --attn sdpa"
            )
        if device.type == "cpu":
            raise InputError("flash_attention_2 runs on a GPU only, and the device is cpu; say --attn sdpa")
    return asked


def options(name: str, cls: type, asked: str | None) -> dict[str, Any]:
    """What `from_pretrained` is told. ModelError for a class that has no such attention."""
    if asked is None:
        return {}
    there = [way for way, flag in WAYS.items() if flag is None or getattr(cls, flag, False)]
    if asked not in there:
        raise ModelError(
            f"{name} is a {cls.__name__}, whose attention knows {', '.join(there)} and not {asked}; say one of those"
        )
    return {"attn_implementation": asked}


def implementations(model: nn.Module) -> dict[str, Any]:
    """Which implementations of attention and experts a model of Transformers runs; empty where it says nothing of them."""
    config: Any = getattr(model, "config", None)
    found = {name: getattr(config, f"_{name}", None) for name in ("attn_implementation", "experts_implementation")}
    return {name: value for name, value in found.items() if isinstance(value, str)}
