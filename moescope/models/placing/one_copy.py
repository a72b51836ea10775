"""Loading without a second copy: weights are read straight to where they stay, one at a time.

Transformers maps the files of a checkpoint into memory and opens all of them at once: what is put together from several weights
(experts, types) then lies beside pages of the files, and threads that read ahead would hold copies too. What stays in memory
is read instead of mapped here, by one thread; what goes to a GPU is left as Transformers has it, whose pages can be dropped.
"""

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .memory_plan import Plan
from .placement import Device

_ASYNC = "HF_DEACTIVATE_ASYNC_LOAD"


@contextmanager
def one_copy(places: Mapping[Device, int]) -> Iterator[None]:
    """While this is open, checkpoints that stay on the CPU or the disk are read and not mapped."""
    if not {"cpu", "disk"} & set(places):
        yield
        return
    from transformers import modeling_utils

    before, held = modeling_utils.safe_open, os.environ.get(_ASYNC)
    modeling_utils.safe_open = partial(_read, before)  # type: ignore[assignment]
    os.environ[_ASYNC] = "1"
    try:
        yield
    finally:
        modeling_utils.safe_open = before
        os.environ.pop(_ASYNC) if held is None else os.environ.update({_ASYNC: held})


def _read(opened: Any, *args: Any, **kwargs: Any) -> Any:
    """`safe_open` that reads; where safetensors cannot, it maps as before."""
    with suppress(TypeError):
        return opened(*args, **{**kwargs, "backend": "pread"})
    return opened(*args, **kwargs)


@dataclass(frozen=True)
class Spread:
    """Options of `from_pretrained`, and the folder of what goes to the disk."""

    options: dict[str, Any]
    device: torch.device | None
    folder: str | None

    def kept_for(self, model: Any) -> Any:
        """The model; the folder goes when it does, or when Python ends."""
        if self.folder is not None:
            weakref.finalize(model, shutil.rmtree, self.folder, ignore_errors=True)
        return model if self.device is None else model.to(self.device)


@contextmanager
def spread_over(found: Plan, fixed: bool = False) -> Iterator[Spread]:
    """How a plan is asked of Transformers. A folder for the disk is made where one is needed, and removed if loading fails.

    `fixed`: the model cannot be moved once it is loaded.
    """
    one = next(iter(found.places))
    if found.map is None:
        device = torch.device("cuda", one) if isinstance(one, int) else torch.device(one)
        direct = fixed or (device.type != "cpu" and _has_accelerate())  # without it: by way of the CPU
        yield Spread({"device_map": {"": device}} if direct else {}, None if direct else device, None)
        return
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # that weights are on the disk has been said
    folder = tempfile.mkdtemp(prefix="moescope-offload-") if "disk" in found.map.values() else None
    try:
        yield Spread({"device_map": found.map, "offload_folder": folder}, None, folder)
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _has_accelerate() -> bool:
    from importlib.util import find_spec

    return find_spec("accelerate") is not None
