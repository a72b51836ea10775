"""Small models of systems by their names, ready for texts or pictures."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import zoo
from .loaded import How, Loaded, tokenizer_of

_TIMES = (900.0, 700.0, 500.0, 300.0, 100.0)


def load_small(name: str, how: How, texts: Path) -> Loaded:
    """A small model of a system, trained where weights are shipped; texts are read with the tokenizer in the folder `texts`."""
    reads = zoo.system(name).READS
    tokenizer = tokenizer_of(texts, {})[0] if reads == "text" else None
    model, notes = _small(name, {"vocabulary": len(tokenizer)} if tokenizer is not None else {})
    model = (model.to(how.device) if isinstance(how.dtype, str) else model.to(how.device, how.dtype)).eval()
    if reads != "noise":
        return Loaded(name, model, tokenizer, notes=notes, by_hand=reads == "other")

    size: Any = SimpleNamespace(image_size=(model.config.sample_size,) * 2, channels=model.config.num_channels)

    def pictures(images: Sequence[Any] | np.ndarray) -> np.ndarray:
        from .vmoe.images import prepare

        return prepare(images, size)

    return Loaded(name, model, None, pictures, notes, times=_TIMES)


def _small(name: str, changes: dict[str, Any]) -> tuple[Any, list[str]]:
    """The model, and what is to be said of its weights."""
    if name in zoo.shipped():
        return zoo.trained(name), []
    chance = f"{name} is a small model of this system with random weights: what its experts are for is chance"
    return zoo.build(name, **changes), [chance]
