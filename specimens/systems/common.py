"""What the trainings share: one loop, one thread, the same numbers for the same seed, and where the weights go."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from moescope.models import zoo
from specimens.training.shared import learning_rate, optimizer

TARGET = Path("moescope/models/zoo/weights")


def fit(model: nn.Module, loss_of: Callable[[int], Tensor], steps: int, peak: float) -> float:
    """Trains in place with the loss of each step; CPU seconds that it took. The model ends in evaluation mode."""
    torch.set_num_threads(1)
    stepper, begun = optimizer(model.train(), peak), time.process_time()
    for step in range(steps):
        for group in stepper.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        stepper.zero_grad()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f} cpu {time.process_time() - begun:.0f} s", flush=True)
    model.eval()
    return time.process_time() - begun


def ship(name: str, model: nn.Module, built: dict[str, Any], recipe: dict[str, Any], folder: Path = TARGET) -> None:
    """Writes NAME.safetensors in float16 and NAME.json, with what the model is built with and how it was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    once = dict(model.named_parameters()) | dict(model.named_buffers())  # weights that steps of a recursion share: one name
    halves = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if key in once
    }
    save_file(halves, folder / f"{name}.safetensors")
    (folder / f"{name}.safetensors").chmod(0o644)
    whole = hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest()
    said = {"build": built, "recipe": {**recipe, "torch": torch.__version__, "sha256": whole}}
    (folder / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n")
    print(json.dumps(said["recipe"]), flush=True)


def begun(name: str, built: dict[str, Any], seed: int) -> nn.Module:
    """The model that training starts with."""
    return zoo.build(name, seed, **built)


def parameters(model: nn.Module) -> int:
    """How many numbers it has."""
    return sum(p.numel() for p in model.parameters())
