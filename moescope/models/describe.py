"""What a model is: for the record that goes with a run."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from .. import __version__

_WHOLE = 2 << 30  # weights up to this many bytes are hashed whole


def describe_model(model: nn.Module, name: str | None = None) -> dict[str, Any]:
    """Name, family, configuration, weights' hash, size and type, by the columns of `models`."""
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else None
    quantization = getattr(config, "quantization_config", None)
    return {
        "name": name or getattr(model, "name_or_path", "") or type(model).__name__,
        "family": getattr(config, "model_type", type(model).__name__),
        "config": settings,
        "weights_sha256": weights_sha256(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "quantization": None if quantization is None else str(getattr(quantization, "quant_method", quantization)),
        "code": f"{type(model).__module__}.{type(model).__name__}",
    }


def weights_sha256(model: nn.Module) -> str:
    """Hash of every parameter and buffer by name; of 64 Ki values of each ('sample:') above 2 GiB."""
    state = model.state_dict()
    whole = sum(t.numel() * t.element_size() for t in state.values()) <= _WHOLE
    digest = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        if not whole:
            flat = flat[:: max(1, flat.numel() // 65536)]
        digest.update(flat.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return ("" if whole else "sample:") + digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what took part."""
    found = {"moescope": __version__}
    for package in ("torch", "transformers", "duckdb", "pyarrow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
