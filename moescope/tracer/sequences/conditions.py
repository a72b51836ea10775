"""What a forward pass was told beside its tokens (timestep, sigma, class, guidance, task), by the names of arguments."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .streams import Frame

_KINDS = {
    "timestep": ("timestep", "timesteps", "t"),
    "sigma": ("sigma", "sigmas", "noise_level"),
    "class": ("class_labels", "y"),
    "guidance": ("guidance", "guidance_scale"),
    "task": ("task", "tasks", "task_id", "task_ids"),
    "stage": ("stage",),
    "step": ("denoising_step", "env_step"),
}
KEY = "condition:"


def conditions(root: Frame) -> dict[str, Any]:
    """{kind: number, word, or tensor of one or of one per sequence} in what a model was called with."""
    found = {kind: root.inputs.get(name) for kind, names in _KINDS.items() for name in names if name in root.inputs}
    return {kind: value for kind, value in found.items() if _says(kind, value)}


def _says(kind: str, value: Any) -> bool:
    if torch.is_tensor(value):
        whole = not value.is_floating_point() and not value.is_complex()
        return value.dim() <= 1 and value.numel() > 0 and (whole or kind != "class")
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def kept(told: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Numbers and words; and the tensors among them by `KEY` + kind, copied, in types that a host can read."""
    tensors = {
        KEY + kind: (value.detach().float() if value.is_floating_point() else value.detach()).clone()
        for kind, value in told.items()
        if torch.is_tensor(value)
    }
    return {kind: value for kind, value in told.items() if not torch.is_tensor(value)}, tensors


def rows(plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray], sequences: list[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Rows of table `conditions` without their forward: one where it holds for all, else one per sequence.

    sequences: keys of the rows of every stream; values are of those that are as many. plain: numbers, words, or lists of them.
    """
    for kind, value in {**plain, **{k.removeprefix(KEY): v for k, v in arrays.items() if k.startswith(KEY)}}.items():
        values = list(np.asarray(value).reshape(-1).tolist()) if not isinstance(value, str) else [value]
        keys = next((own for own in sequences if len(own) == len(values)), None)
        if len(set(values)) == 1:
            yield _row(kind, values[0], None)
        elif keys is not None:
            yield from (_row(kind, one, int(key)) for one, key in zip(values, keys))


def _row(kind: str, value: Any, sequence: int | None) -> dict[str, Any]:
    number = isinstance(value, int | float)
    row = {"kind": kind, "value": float(value)} if number else {"kind": kind, "label": str(value)}
    return row if sequence is None else {**row, "sequence": sequence}
