"""Hand a batch of windows to a model: padded, as pixels, or to be gone on with."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...models.loading import Loaded
from ...weights import home, precision
from .media_feeding import asked_inputs, said_of_media
from .windows import Window


def run_batch(
    loaded: Loaded, batch: list[Window], generate: int, call: Mapping[str, Any], watch: Mapping[str, Any] | None = None
) -> None:
    """One forward of a batch of images or texts, so many generated tokens, or a prompt's picture with a pipeline's options.

    `watch`: what `generate` is told beside that, of who looks on or stops it.
    """
    model: Any = loaded.model
    if loaded.pipe is not None:
        (window,) = batch  # more would stand in the denoiser's batch in the pipeline's own order
        noise = torch.Generator().manual_seed(window.info.row + window.info.part)
        with torch.no_grad():
            loaded.pipe(prompt=[window.info.text], generator=noise, **{"output_type": "latent", **call})
        return
    device = home(model)
    with torch.no_grad():
        if loaded.prepare is not None:
            pixels = torch.from_numpy(np.ascontiguousarray(loaded.prepare([w.image for w in batch])))
            if loaded.times:
                _noised(model, pixels, loaded.times, batch[0].info.row)
            else:
                model(pixel_values=pixels.to(device, precision(model)))
            return
        if any(w.asked is not None for w in batch):
            inputs = asked_inputs(loaded, batch, pad_id(loaded) or 0, generate > 0)
        else:
            inputs = _padded([w.ids or [] for w in batch], loaded, left=generate > 0, device=device)
        with said_of_media(loaded, batch):
            _run(loaded, batch, inputs, generate, device, watch or {})


def _run(
    loaded: Loaded,
    batch: list[Window],
    inputs: Mapping[str, Any],
    generate: int,
    device: torch.device,
    watch: Mapping[str, Any],
) -> None:
    """One forward of a batch of texts, or so many generated tokens."""
    model: Any = loaded.model
    if generate:
        model.generate(**inputs, max_new_tokens=generate, do_sample=False, **watch)
    elif batch[0].decoder_ids is not None:
        decoder = _padded([w.decoder_ids or [] for w in batch], loaded, False, device)
        model(**inputs, **{f"decoder_{name}": value for name, value in decoder.items()})
    else:
        model(**inputs)


def _noised(model: Any, pixels: torch.Tensor, times: tuple[float, ...], seed: int) -> None:
    """One forward for each timestep on the straight way from noise (1000) to picture (0): rectified flow, arXiv 2209.03003."""
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    for time in times:
        share = time / 1000
        mixed = (share * noise + (1 - share) * pixels).to(home(model), precision(model))
        model(hidden_states=mixed, timestep=torch.full((len(pixels),), time, device=mixed.device))


def override(loaded: Loaded, overrides: Mapping[str, Any]) -> None:
    """Change a V-MoE's routing, check a pipeline's options; InputError where there is nothing to set."""
    if loaded.pipe is not None:
        known = inspect.signature(type(loaded.pipe).__call__).parameters
        if unknown := [name for name in overrides if name not in known or name in ("self", "prompt", "generator")]:
            raise InputError(f"a call of {type(loaded.pipe).__name__} takes no {unknown[0]!r}; it takes {', '.join(known)}")
        return
    if not hasattr(loaded.model, "set_routing"):
        raise InputError(
            f"{loaded.name} has no routing options to set ({', '.join(overrides)}): --set is for V-MoE; change others "
            "with moescope.interventions, or see moescope ablate"
        )
    loaded.model.set_routing(**overrides)


def pad_id(loaded: Loaded) -> int | None:
    """The vocabulary id that fills rows up, by the tokenizer, else by the model's configuration."""
    config = getattr(loaded.model, "config", None)
    found = [getattr(one, "pad_token_id", None) for one in (loaded.tokenizer, config)]
    return next((i for i in found if isinstance(i, int)), None)


def _padded(ids: list[list[int]], loaded: Loaded, left: bool, device: torch.device) -> dict[str, torch.Tensor]:
    pad = pad_id(loaded) or 0
    longest = max(map(len, ids))
    rows = [[0] * (longest - len(i)) for i in ids]
    mask = [r + [1] * len(i) if left else [1] * len(i) + r for r, i in zip(rows, ids)]
    full = [[pad] * len(r) + i if left else i + [pad] * len(r) for r, i in zip(rows, ids)]
    return {"input_ids": torch.tensor(full, device=device), "attention_mask": torch.tensor(mask, device=device)}
