"""A model as a folder: config.json and model.safetensors."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ....errors import InputError
from ..config import MODEL_TYPE

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save(model: torch.nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    arrays = {name: array.detach().cpu().contiguous() for name, array in model.state_dict().items()}
    save_file(arrays, folder / WEIGHTS, metadata={"format": "pt", "model_type": MODEL_TYPE})
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone


def load(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read both files; InputError if one is missing, unreadable or of another model type."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} has no {' and no '.join(missing)}: give a folder that save_pretrained wrote.")
    try:
        config = json.loads((folder / CONFIG).read_text())
        arrays = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be read as a saved V-MoE: {error}.") from error
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        raise InputError(f"{folder / CONFIG} does not say model_type {MODEL_TYPE!r}: it is another kind of model.")
    return config, arrays
