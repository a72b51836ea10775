"""Build one family tiny: configuration, model, seeded weights and inputs that run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ...errors import ModelError
from .inputs import inputs_for
from .model_types import config_class, model_class
from .shrink import tiny_config
from .special import SPECIAL, Special
from .weights import refill


@dataclass(frozen=True)
class TinyModel:
    """A family made tiny: `model(**inputs)` runs in milliseconds, offline, the same on every call."""

    model_type: str
    model: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    notes: str


def build(model_type: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> TinyModel:
    """The family `model_type` with random weights of `dtype`, in eval mode; equal seeds give bit-identical models.

    Raises InputError for a name that is no family, ModelError where Transformers cannot run what the shrinker made.
    """
    config = config_class(model_type)
    special = SPECIAL.get(model_type, Special())
    try:
        with _aside(seed):
            model = model_class(model_type)._from_config(tiny_config(config, **special.fields), dtype=dtype).eval()
            _cast(model, dtype)
            refill(model, seed)
            return TinyModel(model_type, model, inputs_for(model, seed), special.notes)
    except Exception as error:
        raise ModelError(
            f"{model_type!r} cannot be built tiny ({type(error).__name__}: {error}); "
            "the generic sizes do not suffice, so give it an entry in moescope/models/tiny/special.py."
        ) from error


@contextmanager
def _aside(seed: int) -> Iterator[None]:
    """Seed torch and hush Transformers, leaving both as they were."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        logging.set_verbosity(verbosity)


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give every weight the dtype that loading a checkpoint would: `dtype`, except what the family keeps in fp32."""
    kept = model._get_dtype_plan(dtype)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32 if any(part in name for part in kept) else dtype)
