"""Recursive models: modules that fire more than once in one forward pass and return states, as HRM's slow and fast modules do.

They are found by watching one small forward, whatever they are called (for a model that recurs on some inputs only, give such
inputs); the outermost ones count, not the layers inside them. A firing's number, from 0 and anew in each forward pass, is its
iteration: so the steps of a generation, one forward pass each, add to the same cycles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...contracts import Site, find
from ...errors import NotMoEError
from ...models.sources import WRAPPING
from ...proof import example_inputs, quiet
from ...routers.base import stack_of
from ...routers.calls import signature
from ..options import Options


@dataclass(frozen=True, eq=False)
class Repeated:
    """A module that fires more than once in a forward pass; `short` is the end of its path that no other one has."""

    path: str
    module: nn.Module
    short: str
    stack: str

    @property
    def name(self) -> str:
        """As of a site: its path in the model."""
        return self.path


def find_routers(model: nn.Module, options: Options, inputs: Mapping[str, Any] | None) -> tuple[list[Site], list[Repeated]]:
    """Routers asked for, and where the dimensionality of states is to be summed up the repeated modules.

    NotMoEError for a model that has neither, and for one without routers whose states are not asked for.
    """
    wanted = "dimensionality" in options.activations
    try:
        sites = find(model)
    except NotMoEError as refusal:
        modules = _tried(model, inputs)
        if wanted and modules:
            return options.choose([]), modules
        if modules:
            paths = " and ".join(m.path for m in modules[:3])
            raise NotMoEError(
                f"{type(model).__name__} has no router, but modules that fire more than once in a forward pass ({paths}): to "
                'have the dimensionality of their states add --measure dimensionality (activations=["dimensionality"])'
            ) from refusal
        raise
    return options.choose(sites), _tried(model, inputs) if wanted else []


def _tried(model: nn.Module, inputs: Mapping[str, Any] | None) -> list[Repeated]:
    """None where the model cannot run on its example: the proof of its routers says so, if it has any."""
    try:
        return repeated(model, inputs if inputs is not None else example_inputs(model))
    except Exception:
        return []


def repeated(model: nn.Module, inputs: Mapping[str, Any]) -> list[Repeated]:
    """The outermost modules with modules inside that fire more than once in `model(**inputs)`, each time with states.

    States are floats of shape (sequences, tokens, width), with the sequences and tokens of the ids (or the images) given.
    """
    firings = _watch(model, inputs)
    fits = {m for m, seen in firings.items() if len(seen) > 1 and all(_of_inputs(out, inputs) for _, out in seen)}
    outer = {m for m in fits if any(not fits & above - {m} for above, _ in firings[m])}
    paths = {name: m for name, m in model.named_modules() if m in outer and WRAPPING.rstrip(".") not in m._modules}
    images = "pixel_values" in inputs and not {"input_ids", "inputs_embeds"} & set(signature(model).parameters)
    names = [name.replace(WRAPPING, "") for name in paths]
    return [Repeated(name, m, _short(name, names), stack_of(name, images)) for name, m in zip(names, paths.values())]


def _watch(model: nn.Module, inputs: Mapping[str, Any]) -> dict[nn.Module, list[tuple[set[nn.Module], torch.Size | None]]]:
    """What every module with children did in one forward: the modules that were open around it, and the shape of its states."""
    firings: dict[nn.Module, list[tuple[set[nn.Module], torch.Size | None]]] = {}
    opened: list[nn.Module] = []

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        opened.pop()
        states = states_of(output)
        firings.setdefault(module, []).append((set(opened), None if states is None else states.shape))

    inner = [m for m in model.modules() if any(True for _ in m.children())]
    handles = [m.register_forward_pre_hook(lambda m, _: opened.append(m)) for m in inner]
    handles += [m.register_forward_hook(leave) for m in inner]
    try:
        with quiet(model, inputs):
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return firings


def states_of(output: Any) -> Tensor | None:
    """The hidden states (sequences, tokens, width) that a module returned, alone or first; None if it returned none."""
    first = output[0] if isinstance(output, tuple | list) and output else getattr(output, "last_hidden_state", output)
    return first if torch.is_tensor(first) and first.dim() == 3 and first.is_floating_point() else None


def _of_inputs(shape: torch.Size | None, inputs: Mapping[str, Any]) -> bool:
    if shape is None:
        return False
    text = [v.shape[:2] for n, v in inputs.items() if n.endswith(("input_ids", "inputs_embeds")) and torch.is_tensor(v)]
    pixels = [v.shape[:1] for n, v in inputs.items() if n == "pixel_values" and torch.is_tensor(v)]
    return shape[:2] in text or shape[:1] in pixels or not text + pixels


def _short(name: str, names: list[str]) -> str:
    """The shortest end of a path that begins with a word and that no other path has."""
    parts = name.split(".")
    ends = [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1) if not parts[i].isdigit()]
    return next((end for end in ends if sum(f".{n}".endswith(f".{end}") for n in names) == 1), name)
