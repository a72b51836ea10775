"""Transformers' own tensor and expert parallelism: one process for each part of a model, started by torchrun."""

from typing import Any

from torch import nn

from ..errors import InputError, ModelError
from ..ranks import begin, together

KINDS = ("tensor", "expert")


def distributed(kind: str | None, **places: Any) -> Any:
    """What Transformers is to load with; None for a model that this process runs alone.

    `tensor`: every process has a part of every matrix, by the model's own plan; `expert`: of the experts, whole ones.
    InputError where no other process is there, or one of `places` (device, ...) is named: every process has its own device.
    """
    if kind is None:
        return None
    if kind not in KINDS:
        raise InputError(f"parallel {kind!r} is not one of {', '.join(KINDS)}")
    for name, asked in places.items():
        if asked not in (None, "auto"):
            raise InputError(
                f"{name} {str(asked)!r} cannot be asked of a model that several processes run: each has a device of its own"
            )
    count = begin().count
    from transformers.distributed import DistributedConfig

    if kind == "tensor":
        return DistributedConfig(tp_size=count, tp_plan="auto")
    if "ep_size" not in DistributedConfig.__dataclass_fields__:
        raise ModelError("experts are spread by their own numbers only with transformers 5.20 or later; install it")
    return DistributedConfig(tp_size=count, tp_plan="auto", ep_size=count)


def check_distributed(name: str, model: nn.Module, asked: Any) -> None:
    """ModelError if a model was to be spread and is not, or in a way in which it cannot run."""
    if asked is None:
        return
    if (ranks := together(model)) is None:
        raise ModelError(f"{name} is no model that Transformers can spread over processes; trace it in one")
    config: Any = getattr(model, "config", None)
    heads = getattr(config.get_text_config(), "num_key_value_heads", None)
    plan: Any = getattr(model, "_tp_plan", None) or {}
    dealt = any(key.rpartition(".")[2] == "k_proj" and style == "colwise" for key, style in plan.items())
    if isinstance(heads, int) and dealt and heads % ranks.count:
        count = f"{ranks.count} processes"
        raise ModelError(f"{name} has {heads} key-value heads, which {count} cannot share evenly; start as many as divide them")
