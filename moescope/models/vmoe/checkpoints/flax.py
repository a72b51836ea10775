"""The authors' parameters under our names: what is stored is transposed where torch multiplies from the other side."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np
import torch

from ....errors import InputError
from ..config import VMoEConfig
from ..model import VMoE

Change = Callable[[np.ndarray], np.ndarray]
_BLOCK = re.compile(r"^Encoder/encoderblock_(\d+)/(.+)$")


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1)


def _turned(x: np.ndarray) -> np.ndarray:
    return x.T


def _heads_out(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], -1).T


def _heads_in(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1]).T


def _patch(x: np.ndarray) -> np.ndarray:
    return x.transpose(3, 2, 0, 1)


_NORM = {"scale": ("weight", _same), "bias": ("bias", _same)}
_DENSE = {"kernel": ("weight", _turned), "bias": ("bias", _same)}
_SPLIT = {"kernel": ("weight", _heads_out), "bias": ("bias", _flat)}
_JOIN = {"kernel": ("weight", _heads_in), "bias": ("bias", _same)}


def _names(theirs: str, ours: str, leaves: Mapping[str, tuple[str, Change]]) -> dict[str, tuple[str, Change]]:
    return {f"{theirs}/{leaf}": (f"{ours}.{name}", change) for leaf, (name, change) in leaves.items()}


def _attention(theirs: str, ours: str) -> dict[str, tuple[str, Change]]:
    names = _names(f"{theirs}/out", f"{ours}.out", _JOIN)
    for part in ("query", "key", "value"):
        names |= _names(f"{theirs}/{part}", f"{ours}.{part}", _SPLIT)
    for part in ("query", "key"):
        names[f"{theirs}/{part}_ln/scale"] = (f"{ours}.{part}_norm.weight", _same)
    return names


def _mlp(theirs: str, ours: str) -> dict[str, tuple[str, Change]]:
    return _names(f"{theirs}/Dense_0", f"{ours}.up", _DENSE) | _names(f"{theirs}/Dense_1", f"{ours}.down", _DENSE)


_MOE: dict[str, tuple[str, Change]] = {
    "Moe/Router/dense/kernel": ("mlp.router.weight", _turned),
    "Moe/Router/mu": ("mlp.router.mu", _same),
    "Moe/Router/scale": ("mlp.router.scale", _same),
    "Moe/Mlp/Dense_0/kernel": ("mlp.experts.up_proj", _same),
    "Moe/Mlp/Dense_0/bias": ("mlp.experts.up_proj_bias", _same),
    "Moe/Mlp/Dense_1/kernel": ("mlp.experts.down_proj", _same),
    "Moe/Mlp/Dense_1/bias": ("mlp.experts.down_proj_bias", _same),
}
IN_BLOCK: dict[str, tuple[str, Change]] = {
    **_names("LayerNorm_0", "norm_1", _NORM),
    **_names("LayerNorm_1", "norm_2", _NORM),
    **_attention("SelfAttention", "attention"),
    **_mlp("Mlp", "mlp"),
    **_MOE,
}
AT_TOP: dict[str, tuple[str, Change]] = {
    "embedding/kernel": ("embedding.weight", _patch),
    "embedding/bias": ("embedding.bias", _same),
    "cls": ("cls", _same),
    "Encoder/posembed_input/pos_embedding": ("positions.embedding", _same),
    **_names("Encoder/encoder_norm", "norm", _NORM),
    **_names("pre_logits", "pre_logits", _DENSE),
    **_names("head", "head", _DENSE),
    "MapHead/probe": ("pool.probe", _same),
    **_attention("MapHead/MultiHeadDotProductAttention", "pool.attention"),
    **_names("MapHead/LayerNorm", "pool.norm", _NORM),
    **_mlp("MapHead/Mlp", "pool.mlp"),
}


def flatten(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flax paths joined by '/', without a leading 'params/'; what lies beside 'params' is left out."""
    flat = {path: np.asarray(leaf) for path, leaf in _leaves(params, "")}
    inside = {path.removeprefix("params/"): leaf for path, leaf in flat.items() if path.startswith("params/")}
    return inside or flat


def from_flax(params: Mapping[str, Any], config: "VMoEConfig | Mapping[str, Any] | str | np.ndarray") -> VMoE:
    """The model with the authors' parameters, in evaluation mode.

    `params` is flat by flax path, with or without 'params/', or nested; `config` is a VMoEConfig, or a dict or JSON
    text named as theirs. The number of channels and the image size are read off the arrays. InputError if they
    do not fit together.
    """
    flat = flatten(params)
    config = config if isinstance(config, VMoEConfig) else VMoEConfig.from_dict(config)
    config = _fit(config, flat)
    arrays = {}
    for path, array in flat.items():
        name, change = _ours(path)
        arrays[name] = torch.tensor(np.ascontiguousarray(change(array), dtype=np.float32))
    return VMoE.from_arrays(config, arrays)


def _ours(path: str) -> tuple[str, Change]:
    block = _BLOCK.match(path)
    found = IN_BLOCK.get(block.group(2)) if block else AT_TOP.get(path)
    if found is None:
        raise InputError(f"parameter {path!r} is not one of a V-MoE: give the parameters of a VisionTransformerMoe.")
    return (f"layers.{block.group(1)}.{found[0]}" if block else found[0]), found[1]


def _fit(config: VMoEConfig, flat: Mapping[str, np.ndarray]) -> VMoEConfig:
    if "embedding/kernel" not in flat:
        raise InputError("the parameters have no embedding/kernel: give the parameters of a VisionTransformerMoe.")
    config = replace(config, channels=int(flat["embedding/kernel"].shape[2]))
    positions = flat.get("Encoder/posembed_input/pos_embedding")
    if config.image_size is not None or positions is None:
        return config
    patches = positions.shape[1] - (config.classifier == "token")
    side = isqrt(patches)
    rows, columns = (side, side) if side * side == patches else (1, patches)
    return replace(config, image_size=(rows * config.patch_size[0], columns * config.patch_size[1]))


def _leaves(tree: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        path = f"{prefix}{name}"
        found += _leaves(value, f"{path}/") if isinstance(value, Mapping) else [(path, value)]
    return found
