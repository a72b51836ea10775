"""What models that people have take on machines that people have, by calculation: nothing is loaded.

Configurations by the published config.json of mistralai/Mixtral-8x7B-v0.1 and openai/gpt-oss-20b (sizes as in their model
cards: 46.7 and 20.9 billion weights). gpt-oss comes in MXFP4 and is read back as bfloat16, since its kernels run past the
routers' decisions. A GPU keeps a tenth of its memory for what a forward computes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from moescope.models.placing.memory_plan import Plan, plan, size
from moescope.models.placing.placement import Device, Placement
from moescope.models.quantized.ways import bytes_each
from moescope.models.skeleton import skeleton

GB = 10**9
MIXTRAL: dict[str, Any] = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": False,
}  # fmt: skip
GPT_OSS: dict[str, Any] = {
    "vocab_size": 201_088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "num_local_experts": 32, "num_experts_per_tok": 4, "tie_word_embeddings": False,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model on a machine: GPUs and memory in GB, and the command."""

    model: str
    machine: str
    gpus: tuple[int, ...]
    ram: int
    command: str
    quantize: str | None = None


CASES = [
    Case("Mixtral 8x7B", "one card of 24 GB, 128 GB of memory", (24,), 128, "--device auto"),
    Case("Mixtral 8x7B", "one card of 24 GB, 64 GB of memory", (24,), 64, "--device auto"),
    Case("Mixtral 8x7B", "one card of 80 GB, 128 GB of memory", (80,), 128, "--device auto"),
    Case("Mixtral 8x7B", "two cards of 80 GB", (80, 80), 128, "--device-map balanced"),
    Case("Mixtral 8x7B", "one card of 80 GB", (80,), 128, "--quantize int8-torchao", "int8-torchao"),
    Case("gpt-oss-20b", "one card of 24 GB, 64 GB of memory", (24,), 64, "--device auto"),
    Case("gpt-oss-20b", "one card of 80 GB", (80,), 64, "--device auto"),
    Case("gpt-oss-20b", "no card, 64 GB of memory", (), 64, "--device cpu"),
]
HUB = {"Mixtral 8x7B": "mistralai/Mixtral-8x7B-v0.1", "gpt-oss-20b": "openai/gpt-oss-20b"}


def skeletons() -> dict[str, Any]:
    """{model: model without numbers}."""
    from transformers import GptOssConfig, GptOssForCausalLM, MixtralConfig, MixtralForCausalLM

    mixtral = MixtralConfig(**MIXTRAL, dtype=torch.bfloat16)
    oss = GptOssConfig(**GPT_OSS, dtype=torch.bfloat16)
    return {
        "Mixtral 8x7B": skeleton(MixtralForCausalLM, mixtral, "auto"),
        "gpt-oss-20b": skeleton(GptOssForCausalLM, oss, "auto"),
    }


def plans() -> Iterator[tuple[Case, Plan]]:
    """Every case with what it takes, and where that goes."""
    built = skeletons()
    for case in CASES:
        model = built[case.model]
        device = torch.device("cuda", 0) if case.gpus else torch.device("cpu")
        free: dict[Device, int] = {n: total * GB for n, total in enumerate(case.gpus)}
        free |= {"cpu": case.ram * GB, "disk": 1000 * GB}
        strategy = "balanced" if "balanced" in case.command else None
        where = Placement(device, strategy, may_spread=case.command == "--device auto")
        yield case, plan(case.model, model, where, free, packed=bytes_each(case.quantize, model, device))


def table() -> str:
    """The table of the README."""
    lines = ["| model | machine | `moescope trace MODEL --data … --store …` with | weights | go to |", "|---|---|---|---|---|"]
    for case, found in plans():
        where = ", ".join(f"{'disk' if p == 'disk' else f'GPU {p}' if isinstance(p, int) else 'memory'} {size(n)}"
                          for p, n in found.places.items())  # fmt: skip
        lines.append(f"| `{HUB[case.model]}` | {case.machine} | `{case.command}` | {size(found.total)} | {where} |")
    return "\n".join(lines)
