"""What a model is: for the record that goes with a run."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__, hidden_modules, weights
from ..words import listed
from . import adapters
from .attention import implementations
from .quantized.quantization import quantization

_WHOLE = 2 << 30  # weights up to this many bytes are hashed whole


def describe_model(model: nn.Module, name: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Name, family, configuration, weights' hash, size and type, by the columns of `models`; sentences on what is left out."""
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else None
    digest, notes = fingerprint(model)
    if ran := implementations(model):
        settings = {**(settings or {}), **ran}
    if put := adapters.settings(model):
        settings = {**(settings or {}), "adapters": put}
    described = {
        "name": name or called(model),
        "family": getattr(config, "model_type", type(model).__name__),
        "config": settings,
        "weights_sha256": digest,
        "parameters": parameters(model),
        "dtype": str(weights.precision(model)).removeprefix("torch."),
        "quantization": quantization(model),
        "code": f"{type(model).__module__}.{type(model).__name__}",
        **_own(model),
    }
    return described, notes + hidden_modules.notes(model)


def parameters(model: nn.Module) -> int:
    """How many numbers its weights stand for."""
    return int(_own(model).get("parameters", 0)) or sum(weights.size(w) for _, w in weights.weights(model))


def ask(model: nn.Module, predictions: bool, activations: Sequence[str]) -> None:
    """Tell a model whose weights lie in another program what a trace wants of it. InputError for what it cannot give."""
    asked = getattr(type(model), "asked", None)
    if asked is not None:
        asked(model, predictions, activations)


def _own(model: nn.Module) -> dict[str, Any]:
    """What a model says of itself because its modules do not hold it: its weights lie in another program."""
    said = getattr(type(model), "described", None)
    return {} if said is None else dict(said(model))


def called(model: nn.Module) -> str:
    """A model's name: where it was loaded from, else its class; and the adapters that take part."""
    name = getattr(model, "name_or_path", "") or type(model).__name__
    return " + ".join([str(name), *adapters.active(model)])


def weights_sha256(model: nn.Module) -> str:
    """The hash alone, see `fingerprint`."""
    return fingerprint(model)[0]


@torch.no_grad()
def fingerprint(model: nn.Module) -> tuple[str, list[str]]:
    """Hash of what the state dict holds, by name; of 64 Ki values of each tensor ('sample:') above 2 GiB; and notes.

    Of a tensor in another form it covers the plain tensors, scales and settings that make it up (see `moescope.weights`), of a
    sharded one the part that this process holds, of what cannot be read the name, shape and type alone: each of the last two
    is said in a note.
    """
    state = weights.state(model)
    whole = sum(map(_extent, state.values())) <= _WHOLE
    digest, unread = hashlib.sha256(), []
    for key in sorted(state):
        for part in weights.pieces(weights.fetched(model, key, state[key])):
            data = _bytes(part, whole)
            if torch.is_tensor(part):
                digest.update(f"{key}{tuple(part.shape)}{part.dtype}".encode())
            digest.update(data if data is not None else f"{key}{_outside(state[key])} unread".encode())
            unread += [key] if data is None else []
    parts = [key for key, value in state.items() if weights.sharded(value)]
    return ("" if whole else "sample:") + digest.hexdigest(), [*_notes(unread, parts)]


def _extent(value: Any) -> int:
    """Bytes of what is in an entry of a state dict; of what lies elsewhere without fetching it."""
    if isinstance(value, Tensor) and value.is_meta:
        return value.numel() * value.element_size()
    return sum(p.numel() * p.element_size() for p in weights.pieces(value) if torch.is_tensor(p))


def _bytes(piece: weights.Piece, whole: bool) -> bytes | None:
    if not torch.is_tensor(piece):
        return None if piece is None else piece.encode()
    flat: Tensor = piece.reshape(-1)  # type: ignore[union-attr]
    if not whole:
        flat = flat[:: max(1, flat.numel() // 65536)]
    try:
        return weights.as_bytes(flat.cpu()).numpy().tobytes()  # type: ignore[no-any-return]
    except (RuntimeError, NotImplementedError):  # e.g. no longer there
        return None


def _outside(value: Any) -> str:
    """What is known of a value that cannot be read."""
    return f"{tuple(value.shape)}{value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _notes(unread: list[str], parts: list[str]) -> Iterator[str]:
    """Sentences on what the hash does not cover."""
    for keys, text in (
        (unread, "could not be read: the weights' hash covers its name, shape and type alone"),
        (parts, "is sharded over processes: the weights' hash covers the part that this one holds"),
    ):
        if named := sorted(set(keys)):
            yield f"{listed(named)}: {text}"


def versions() -> dict[str, str]:
    """Versions of what took part."""
    found = {package: _version(package) for package in ("torch", "transformers", "duckdb", "pyarrow", "numpy")}
    return {"moescope": __version__} | {package: there for package, there in found.items() if there is not None}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
