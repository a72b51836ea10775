"""Megatron-Core's own GPT on one CPU process, where the package is installed (`make megatron` puts it into a folder apart).

Three things stand in for CUDA, none of them near a router: the current device, the random states that attention's dropout
forks, and a name of Transformer Engine that `moe_utils` looks up without asking whether it is there.
"""

import contextlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

WHY = "megatron-core is not installed here; `make megatron` installs it apart and runs these tests"


def _ready() -> Any:
    """The package, with a process group of one and the three stand-ins."""
    warnings.simplefilter("ignore")
    pytest.importorskip("megatron.core", reason=WHY)
    import torch.distributed as distributed
    from megatron.core import parallel_state, tensor_parallel
    from megatron.core.transformer.moe import moe_utils

    if not distributed.is_initialized():
        distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    if not parallel_state.model_parallel_is_initialized():
        parallel_state.initialize_model_parallel()
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment, return-value]
    tensor_parallel.get_cuda_rng_tracker().fork = lambda *_, **__: contextlib.nullcontext()
    if not hasattr(moe_utils, "te_general_gemm"):
        moe_utils.te_general_gemm = None
    return parallel_state


def build(**settings: Any) -> nn.Module:
    """Two layers of eight experts, random weights."""
    _ready()
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_config import TransformerConfig

    torch.manual_seed(0)
    config = TransformerConfig(**{
        "num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "ffn_hidden_size": 48, "moe_ffn_hidden_size": 24,
        "num_moe_experts": 8, "moe_router_topk": 2, "moe_router_load_balancing_type": "none", "use_cpu_initialization": True,
        "moe_token_dispatcher_type": "allgather", "add_bias_linear": False, "hidden_dropout": 0.0, "attention_dropout": 0.0,
        "init_method_std": 0.3, **settings,
    })  # fmt: skip
    spec = get_gpt_layer_local_spec(num_experts=8, moe_grouped_gemm=False)
    model = GPTModel(config, spec, vocab_size=64, max_sequence_length=16, position_embedding_type="rope").eval()
    for name, buffer in model.named_buffers():
        if name.endswith("expert_bias"):
            buffer.copy_(torch.randn(buffer.shape) / 10)
    return model


def example(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Two texts, the second three shorter; Megatron's masks say True for what is not attended."""
    random = torch.Generator().manual_seed(seed)
    kept = torch.ones(2, 8, dtype=torch.bool)
    kept[1, 5:] = False
    attended = torch.ones(8, 8, dtype=torch.bool).tril() & kept[:, None, None]
    ids = torch.randint(0, 64, (2, 8), generator=random)
    return {"input_ids": ids, "position_ids": torch.arange(8).expand(2, 8), "attention_mask": ~attended}


def kept(inputs: dict[str, Tensor]) -> Tensor:
    """(B, S) what is no padding, as a mask."""
    mask = inputs["attention_mask"]
    return (mask if mask.dim() == 2 else ~mask[:, 0].diagonal(dim1=1, dim2=2)).long()
