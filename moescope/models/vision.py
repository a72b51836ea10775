"""A V-MoE loaded as every model is: by its folder, or by the prefix of a released checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .loaded import How, Loaded


def from_folder(name: str, folder: Path, how: How) -> Loaded:
    """A folder of ours: config.json and safetensors."""
    from .vmoe import VMoE

    return _loaded(name, VMoE.from_pretrained(folder), how)


def from_prefix(prefix: str, how: How) -> Loaded:
    """Files PREFIX.index and PREFIX.data-…, as V-MoE's own code writes them."""
    from .vmoe.checkpoints.checkpoint import from_checkpoint

    return _loaded(prefix, from_checkpoint(prefix), how)


def _loaded(name: str, model: Any, how: How) -> Loaded:
    from .vmoe.images import prepare

    def pixels(images: Sequence[Any] | np.ndarray) -> np.ndarray:
        return prepare(images, model.config)

    model = model.to(how.device) if isinstance(how.dtype, str) else model.to(how.device, how.dtype)
    return Loaded(name, model.eval(), None, pixels)
