"""The configs of the published models, which their checkpoints do not carry (vmoe/configs/vmoe_paper/).

Shapes tell most of it. What they cannot tell is the same in every released config: top-2, noise 1/E, loss weights
0.005, a bfloat16 dispatcher, groups of 8 images, no batch priority. The capacity factor is 1.05 in pre-training (224
pixels) and 1.5 in fine-tuning (other sizes); S/32 at 224 pixels was evaluated at 4.0.
"""

import re
from collections.abc import Mapping
from math import isqrt

import numpy as np

from ....errors import InputError
from ..config import GROUP_IMAGES, DispatcherConfig, EncoderConfig, MoeConfig, RouterConfig, VMoEConfig

_BLOCK = "Encoder/encoderblock_"
_ROUTER = "Moe/Router/dense/kernel"
Params = Mapping[str, np.ndarray]


def infer_config(params: Params, evaluation: bool = True) -> VMoEConfig:
    """Config of parameters by flax path, as the released configs have it.

    `evaluation` takes the capacity factor that the authors evaluated with, else the one they trained with. InputError
    for ensembles, for routers without a dense kernel, and for parameters that are not a V-MoE's.
    """
    try:
        height, width, channels, hidden = params["embedding/kernel"].shape
        tokens = params["Encoder/posembed_input/pos_embedding"].shape[1]
        heads = params[f"{_BLOCK}0/SelfAttention/query/kernel"].shape[1]
        side = isqrt(tokens - ("cls" in params))
        size = side * height, side * width
        factor = _capacity_factor(hidden, size[0], evaluation)
        layers, mlp_dim = _layers(params), _mlp_dim(params)
        return VMoEConfig(
            num_classes=_last(params, "head/kernel"),
            patch_size=(height, width),
            hidden_size=hidden,
            encoder=EncoderConfig(layers, mlp_dim, heads, moe=_moe(params, tokens, factor)),
            classifier=_classifier(params),
            representation_size=_last(params, "pre_logits/kernel"),
            channels=channels,
            image_size=size,
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"the parameters are not those of a published V-MoE ({error}): give its config too.") from error


def _moe(params: Params, tokens: int, factor: float) -> MoeConfig:
    routers = {_number(path): kernel for path, kernel in params.items() if path.endswith(_ROUTER)}
    if not routers or {kernel.ndim for kernel in routers.values()} != {2}:
        raise InputError("the parameters have no router of a plain V-MoE (ensembles are not built): give a config too.")
    experts = next(iter(routers.values())).shape[1]
    router = RouterConfig(
        num_selected_experts=2,
        importance_loss_weight=0.005,
        load_loss_weight=0.005,
        dispatcher=DispatcherConfig(capacity_factor=factor, bfloat16=True),
    )
    return MoeConfig(experts, tuple(sorted(routers)), GROUP_IMAGES * tokens, router=router)


def _capacity_factor(hidden: int, pixels: int, evaluation: bool) -> float:
    if pixels != 224:
        return 1.5
    return 4.0 if evaluation and hidden == 512 else 1.05


def _classifier(params: Params) -> str:
    if "cls" in params:
        return "token"
    return "map" if "MapHead/probe" in params else "gap"


def _layers(params: Params) -> int:
    return 1 + max(_number(path) for path in params if path.startswith(_BLOCK))


def _mlp_dim(params: Params) -> int:
    return next(v.shape[-1] for p, v in params.items() if p.startswith(_BLOCK) and p.endswith("Mlp/Dense_0/kernel"))


def _last(params: Params, path: str) -> int | None:
    return int(params[path].shape[-1]) if path in params else None


def _number(path: str) -> int:
    found = re.match(rf"{_BLOCK}(\d+)/", path)
    if found is None:
        raise ValueError(f"{path} is in no block")
    return int(found.group(1))
