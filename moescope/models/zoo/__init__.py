"""Small models of systems that no package here offers, one file each: faithful to the paper's rule.

They are named like specimens (`moescope trace mor --data text`) and found by their files; a file says what its model `READS`
(text, noise: a denoiser of pictures, other), how to `build` it, and gives the inputs of one forward (`example`). What is built
has random weights; a few were trained for a minute, and `weights/` has theirs (`trained`).
"""

import json
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ...errors import InputError


@cache
def names() -> tuple[str, ...]:
    """What can be built, by name."""
    return tuple(sorted(_files()))


@cache
def _files() -> dict[str, Path]:
    return {file.stem: file for file in Path(__file__).parent.glob("*/[!_]*.py")}


def system(name: str) -> ModuleType:
    """The module of a system. InputError for a name that is none."""
    if name not in names():
        raise InputError(f"there is no small model of {name!r}: there are {', '.join(names())}")
    return import_module(f"{__name__}.{_files()[name].parent.name}.{name}")


def build(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    """The model, tiny and in evaluation mode; the same for the same seed. `changes`: see the system's own `build`."""
    with torch.random.fork_rng(devices=[]):
        made: nn.Module = system(name).build(seed, **changes)
    return made


WEIGHTS = Path(__file__).parent / "weights"


@cache
def shipped() -> tuple[str, ...]:
    """Those whose trained weights are here, by name."""
    return tuple(sorted(file.stem for file in WEIGHTS.glob("*.safetensors")))


def recipe(name: str) -> dict[str, Any]:
    """How a trained one is built (`build`) and was trained (`recipe`). InputError for a name that was not."""
    if name not in shipped():
        raise InputError(
            f"there are no trained weights of {name!r}: there are of {', '.join(shipped())}; build gives random ones"
        )
    return dict(json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8")))


def trained(name: str) -> nn.Module:
    """The model with its shipped weights, float32 (rounded to float16 once), in evaluation mode. InputError as `recipe`."""
    model = build(name, **recipe(name)["build"])
    shipped_once = load_file(WEIGHTS / f"{name}.safetensors")  # of weights that have several names, one
    named = list(model.named_parameters(remove_duplicate=False))
    shared = {id(p): shipped_once[key] for key, p in named if key in shipped_once}
    model.load_state_dict(shipped_once | {key: shared[id(p)] for key, p in named if id(p) in shared})
    return model


def example_of(model: nn.Module) -> dict[str, Any] | None:
    """Inputs of one forward, for a model of these; None for any other."""
    name = getattr(getattr(model, "config", None), "model_type", None)
    here = isinstance(name, str) and name in names() and any(type(m).__module__.startswith(__name__) for m in model.modules())
    return dict(system(str(name)).example(model)) if here else None
