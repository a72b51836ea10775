"""Small random models that tests trace."""

import torch
from transformers import HrmTextConfig, HrmTextForCausalLM, MixtralConfig, MixtralForCausalLM


def mixtral(layers: int = 2, seed: int = 0, **settings: object) -> MixtralForCausalLM:
    """A tiny Mixtral: 97 ids, 8 experts, top-2."""
    torch.manual_seed(seed)
    config = MixtralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        architectures=["MixtralForCausalLM"], **settings,
    )  # fmt: skip
    return MixtralForCausalLM(config).eval()


def hrm(seed: int = 0, **settings: object) -> HrmTextForCausalLM:
    """A tiny HRM with random weights: H_module fires twice, L_module six times."""
    sizes: dict[str, object] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    sizes |= {"head_dim": 16, "H_cycles": 2, "L_cycles": 3, "max_position_embeddings": 64, "pad_token_id": 0}
    torch.manual_seed(seed)
    config = HrmTextConfig(
        **(sizes | {"initializer_range": 0.2, "embedding_scale": 1.0, "architectures": ["HrmTextForCausalLM"]} | settings)
    )
    return HrmTextForCausalLM(config).eval()


def ids(rows: int = 2, places: int = 7, seed: int = 0) -> torch.Tensor:
    """Random ids without special ones."""
    return torch.randint(3, 90, (rows, places), generator=torch.Generator().manual_seed(seed))
