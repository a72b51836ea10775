"""DeepSpeed: its mixtures in a tiny language model, on one CPU process."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..zoo.adapters._parts_adapters import CausalLM, FeedForward, random_weights

FORMS: dict[str, dict[str, Any]] = {
    "top1": {"k": 1},
    "top1 in order": {"k": 1, "use_rts": False},
    "top2": {"k": 2},
    "top2 argmax": {"k": 2, "top2_2nd_expert_sampling": False},
    "top3": {"k": 3},
    "residual": {"k": 1, "use_residual": True},
    "no drops": {"k": 2, "drop_tokens": False},
}


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """A process group of one, as DeepSpeed needs it; without the extension that it would compile for it."""
    import deepspeed.comm as comm
    import torch.distributed as distributed

    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    began = not distributed.is_initialized()
    if began:
        comm.init_distributed(
            dist_backend="gloo", auto_mpi_discovery=False, init_method=f"file://{folder / 'group'}", rank=0, world_size=1
        )
    try:
        yield
    finally:
        if began:
            distributed.destroy_process_group()


def build(seed: int = 0, experts: tuple[int, ...] = (4, 8), hidden: int = 32, **settings: Any) -> nn.Module:
    """A pyramid: as many experts in each layer as `experts` says; capacity small enough that tokens are dropped."""
    from deepspeed.moe.layer import MoE

    torch.manual_seed(seed)
    settings = {"eval_capacity_factor": 0.6, "capacity_factor": 0.6, "min_capacity": 0} | settings

    def ffn(number: int) -> nn.Module:
        return MoE(hidden, FeedForward(hidden, 2 * hidden), experts[number], **settings)

    model = CausalLM("deepspeed", len(experts), hidden, 64, ffn)
    for module in model.modules():
        if isinstance(module, MoE):
            _different(module)
            module.set_deepspeed_parallelism()
    return random_weights(model)


def _different(layer: Any) -> None:
    """DeepSpeed begins with copies of one expert."""
    for expert in layer.deepspeed_moe.experts.deepspeed_experts:
        for parameter in expert.parameters():
            nn.init.normal_(parameter, std=0.2)


def _ready(form: str, folder: Path, stack: ExitStack) -> tuple[nn.Module, dict[str, Any]]:
    stack.enter_context(one_process(folder))
    ids = torch.randint(1, 64, (2, 16), generator=torch.Generator().manual_seed(1))
    return build(**FORMS[form]), {"input_ids": ids}


READY = {form: partial(_ready, form) for form in FORMS}
