"""Tiny diffusion pipelines of diffusers, without text encoders: each with a call of two samples that embeddings are given to.

Embeddings of prompts are positive numbers, those of negative prompts negative ones: so what a denoiser is given tells which
half it is, apart from moescope.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from moescope.models.packages import diffusers as package

diffusers = pytest.importorskip("diffusers")
Ready = tuple[Any, dict[str, Any]]


def prompts(*shape: int) -> Tensor:
    """Embeddings that say something: above zero."""
    return torch.rand(*shape) + 0.1


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def hidream() -> Ready:
    model, _ = package.hidream()
    names = ["vae", *(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3", "_4"))]
    parts: dict[str, Any] = dict.fromkeys(names)
    pipe = _quiet(
        diffusers.HiDreamImagePipeline(scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), transformer=model, **parts)
    )
    pipe.default_sample_size = 8  # what it holds pictures down to
    shapes = {"prompt_embeds_t5": (2, 3, 16), "prompt_embeds_llama3": (2, 2, 3, 16), "pooled_prompt_embeds": (2, 16)}
    given = {name: prompts(*shape) for name, shape in shapes.items()}
    given |= {f"negative_{name}": -prompts(*shape) for name, shape in shapes.items()}
    return pipe, {**given, "latents": torch.randn(2, 4, 8, 8), "height": 64, "width": 64}


def nucleus() -> Ready:
    model, _ = package.nucleus()
    parts: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "processor"))
    pipe = _quiet(
        diffusers.NucleusMoEImagePipeline(transformer=model, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), **parts)
    )
    given = {
        "prompt_embeds": prompts(2, 5, 16), "prompt_embeds_mask": torch.ones(2, 5, dtype=torch.long),
        "negative_prompt_embeds": -prompts(2, 3, 16), "negative_prompt_embeds_mask": torch.ones(2, 3, dtype=torch.long),
    }  # fmt: skip
    return pipe, {**given, "latents": torch.randn(2, 16, 16), "height": 64, "width": 64}


def cogvideox() -> Ready:
    model, _ = package.cogvideox()
    parts: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    pipe = _quiet(diffusers.CogVideoXPipeline(transformer=model, scheduler=diffusers.CogVideoXDDIMScheduler(), **parts))
    given = {"prompt_embeds": prompts(2, 5, 16), "negative_prompt_embeds": -prompts(2, 5, 16)}
    return pipe, {**given, "latents": torch.randn(2, 2, 4, 4, 4), "height": 32, "width": 32, "num_frames": 5}


def wan() -> Ready:
    pipe, call = package.wan()
    given = {"prompt_embeds": prompts(2, 5, 16), "negative_prompt_embeds": -prompts(2, 5, 16)}
    return pipe, {**call, **given}


PIPELINES = {make.__name__: make for make in (hidream, nucleus, cogvideox, wan)}
