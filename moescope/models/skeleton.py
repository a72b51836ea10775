"""A model of Transformers without numbers: what its class and configuration make, on the meta device."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn


def skeleton(cls: Any, config: Any, dtype: torch.dtype | str, remote: bool = False) -> nn.Module:
    """The model without numbers, on the meta device, in the type that it will be loaded in."""
    kind = dtype if isinstance(dtype, torch.dtype) else getattr(config, "dtype", None) or torch.float32
    own = deepcopy(config)
    for holder in (own, getattr(own, "text_config", None)):
        if holder is not None and hasattr(holder, "quantization_config"):
            del holder.quantization_config
    with torch.device("meta"):
        if hasattr(cls, "_from_config"):
            return cls._from_config(own, dtype=kind)  # type: ignore[no-any-return]
        return cls.from_config(own, dtype=kind, trust_remote_code=remote)  # type: ignore[no-any-return]
