"""PEFT: X-LoRA, Arrow, Poly and Lily over a tiny Llama (or Mixtral)."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

VOCABULARY = 60
TARGETS = ["q_proj", "down_proj"]


def base(mixture: bool = False, layers: int = 2) -> Any:
    """A Llama, or a Mixtral, with random weights."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "use_cache": False,
    }
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0}
    if mixture:
        config: Any = transformers.MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2)
        return transformers.MixtralForCausalLM(config).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()


def inputs(batch: int = 2, places: int = 8) -> dict[str, Any]:
    """Random ids."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (batch, places), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def filled(model: nn.Module) -> Any:
    """Adapters that do something: PEFT begins with zeros."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in ("lora_B", "lily_B", "poly_lora_B", "poly_router", "xlora_classifier")):
                parameter.copy_(torch.randn_like(parameter) * 0.7)
    return model.eval()


def lora_folders(folder: Path, count: int = 3, mixture: bool = False, targets: list[str] = TARGETS) -> dict[str, str]:
    """Saved LoRA adapters by the names that X-LoRA gives them: their numbers."""
    import peft

    found = {}
    for number in range(count):
        config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        plain = base(mixture)
        torch.manual_seed(10 + number)
        model: Any = peft.get_peft_model(plain, config)
        model.save_pretrained(folder / f"lora{number}")
        found[str(number)] = str(folder / f"lora{number}")
    return found


def xlora(folder: Path, mixture: bool = False, **settings: Any) -> Any:
    """Three LoRAs under X-LoRA's classifier; `mixture`: over a Mixtral."""
    import peft

    targets = ["q_proj", "v_proj"] if mixture else TARGETS
    config: Any = peft.XLoraConfig(
        task_type="CAUSAL_LM", hidden_size=16, xlora_depth=1, layerwise_scalings=True,
        adapters=lora_folders(folder, mixture=mixture, targets=targets), **settings,
    )  # fmt: skip
    torch.manual_seed(5)
    return filled(peft.get_peft_model(base(mixture), config))


def arrow(folder: Path, top_k: int = 2, **settings: Any) -> Any:
    """Three LoRAs under Arrow."""
    import peft
    from peft.tuners.lora import arrow as made

    config = peft.ArrowConfig(top_k=top_k, router_temperature=0.7, rng_seed=1, **settings)
    return made.create_arrow_model(base(), list(lora_folders(folder).values()), config).eval()


def poly(folder: Path, splits: int = 1) -> Any:
    """Three tasks, four skills."""
    import peft

    config: Any = peft.PolyConfig(
        task_type="CAUSAL_LM", target_modules=TARGETS, r=4, n_tasks=3, n_skills=4, n_splits=splits, init_weights=False
    )
    return filled(peft.get_peft_model(base(), config))


def lily(folder: Path) -> Any:
    """Four shared matrices."""
    import peft

    config: Any = peft.LilyConfig(
        task_type="CAUSAL_LM", target_modules=TARGETS, r=4, num_B=4, stride_A=1, scaling=1.5, init_weights=False
    )
    return filled(peft.get_peft_model(base(), config))


READY = {
    "xlora": lambda folder, _: (xlora(folder), inputs()),
    "arrow": lambda folder, _: (arrow(folder), inputs()),
    "poly": lambda folder, _: (poly(folder), {**inputs(), "task_ids": torch.tensor([0, 2])}),
    "lily": lambda folder, _: (lily(folder), inputs()),
}
