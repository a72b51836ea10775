"""Small models whose truth is known: one expert carries one domain; all experts are the same."""

from typing import Any

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from moescope.inputs import Dataset, Example

VOCAB, EXPERTS, WORDS = 48, 4, 8
DOMAINS = ("a", "b", "c", "d")


def mixtral(seed: int = 0, k: int = 1, layers: int = 1) -> MixtralForCausalLM:
    """A tiny Mixtral with random weights."""
    torch.manual_seed(seed)
    config = MixtralConfig(
        vocab_size=VOCAB, hidden_size=VOCAB, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=EXPERTS, num_experts_per_tok=k, pad_token_id=0, tie_word_embeddings=False,
        attn_implementation="eager",
    )  # fmt: skip
    return MixtralForCausalLM(config).eval()


@torch.no_grad()
def planted() -> MixtralForCausalLM:
    """Expert n (of 4) is chosen for the words of domain n, but only domain a's expert does anything: it predicts the next word.

    Words of domain n are ids 4 + 8 n ... 11 + 8 n. Embeddings are one-hot, attention gives nothing, the router reads the word.
    In domain a the next word is the following id, which only expert 0 says; elsewhere words are random.
    """
    model = mixtral()
    layer: Any = model.model.layers[0]
    model.model.embed_tokens.weight.copy_(torch.eye(VOCAB))
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.gate.weight.zero_()
    for domain in range(EXPERTS):
        layer.mlp.gate.weight[domain, 4 + WORDS * domain : 4 + WORDS * (domain + 1)] = 5.0
    experts = layer.mlp.experts
    experts.gate_up_proj.zero_()
    experts.down_proj.zero_()
    for word in range(WORDS):
        experts.gate_up_proj[0, word, 4 + word] = 3.0  # the gate half, then the up half
        experts.gate_up_proj[0, 32 + word, 4 + word] = 1.0
        experts.down_proj[0, 4 + (word + 1) % WORDS, word] = 2.0
    model.lm_head.weight.copy_(torch.eye(VOCAB))
    return model


@torch.no_grad()
def upcycled() -> MixtralForCausalLM:
    """All experts are one expert: whoever runs, the sum over k normalized weights is the same."""
    model = mixtral(3, k=2, layers=2)
    for layer in model.model.layers:
        for weight in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            weight.copy_(10 * weight[:1].expand_as(weight))
    return model


def texts(documents: int = 12, length: int = 24) -> Dataset:
    """`documents` sequences of ids per domain."""
    generator = torch.Generator().manual_seed(0)
    examples: list[Example] = []
    for number in range(documents):
        for n, domain in enumerate(DOMAINS):
            start = int(torch.randint(WORDS, (1,), generator=generator))
            ids = torch.randint(WORDS, (length,), generator=generator)
            ids = (torch.arange(length) + start) % WORDS if domain == "a" else ids
            row = len(examples)
            examples.append(
                Example("planted", row, f"{domain}{number}", input_ids=(ids + 4 + WORDS * n).numpy(), labels={"domain": domain})
            )
    return Dataset("planted", "0" * 64, "text", examples)
