"""Trains the Mixtral specimen: five domains, 8 experts, top-2, byte-level BPE. About 25 minutes on one core.

`python -m specimens.training.mixtral` from the repository root; needs what specimens.corpora.sources names.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from specimens.corpora.corpus import build
from specimens.corpora.tokens import VOCABULARY, rows, save_tokenizer, streams, train_tokenizer
from specimens.training.shared import balance, learning_rate, optimizer, save

TARGET = Path("moescope/models/specimens/mixtral")
CHECKPOINTS = Path("work-specimens/checkpoints/mixtral")
SEED, LENGTH, BATCH, STEPS, PEAK, BALANCE = 20, 256, 8, 2400, 3e-3, 0.01
MARKS = (0.0, 0.01, 0.1, 0.4, 1.0)


def configuration() -> MixtralConfig:
    """Four layers of eight experts: 4.8 M parameters, 2.1 M of them in use for a token."""
    return MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=512,
        sliding_window=None,
        tie_word_embeddings=True,
        router_aux_loss_coef=BALANCE,
        output_router_logits=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.04,
    )


def untrained() -> MixtralForCausalLM:
    """The specimen before its first step, rounded to bf16 as every checkpoint is; in float32 and evaluation mode."""
    torch.manual_seed(SEED)
    model = MixtralForCausalLM(configuration()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16))  # buffers are made by the configuration, and stay float32
    return model


def loss_of(model: MixtralForCausalLM, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross-entropy in nats, mean balancing loss over layers) of a batch without padding."""
    with torch.autocast("cpu", torch.bfloat16):
        out = model.model(ids, output_router_logits=True)
        logits = model.lm_head(out.last_hidden_state[:, :-1])
    entropy = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
    everything = torch.ones(ids.numel(), dtype=torch.bool)
    layers = [balance(r, r.topk(2, -1).indices, everything) for r in out.router_logits]
    return entropy, torch.stack(layers).mean()


def train(data: np.ndarray, steps: int) -> MixtralForCausalLM:
    """Trains from the seed and writes the checkpoints at 0, 1, 10, 40 and 100 % of the steps."""
    torch.manual_seed(SEED)
    model = MixtralForCausalLM(configuration())
    model.set_experts_implementation("eager")
    marks = {round(part * steps) for part in MARKS}
    stepper, begun = optimizer(model, PEAK), time.process_time()
    for step in range(steps + 1):
        if step in marks:
            save(model, CHECKPOINTS / f"step-{step:04d}")
        if step == steps:
            break
        for group in stepper.param_groups:
            group["lr"] = learning_rate(step, steps, PEAK)
        ids = torch.from_numpy(data[step * BATCH : (step + 1) * BATCH])
        entropy, uneven = loss_of(model, ids)
        (entropy + BALANCE * uneven).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        stepper.zero_grad()
        if step % 50 == 0:
            spent = time.process_time() - begun
            print(f"step {step} loss {entropy:.3f} balance {uneven:.3f} cpu {spent:.0f} s", flush=True)
    return model


def main() -> None:
    """Corpus, tokenizer, training, weights and recipe; the figures come from `python -m specimens.measures.measure`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    training, _ = build()
    tokenizer = train_tokenizer(training)
    ids = streams(tokenizer, training)
    data = rows(ids, LENGTH - 1, steps * BATCH, SEED)
    data = np.concatenate([np.full((len(data), 1), tokenizer.token_to_id("<s>")), data], axis=1)
    begun = time.process_time()
    model = train(data, steps)
    save(model, TARGET)
    save_tokenizer(tokenizer, TARGET, causal=True)
    recipe = {
        "seed": SEED,
        "steps": steps,
        "batch": BATCH,
        "length": LENGTH,
        "peak_learning_rate": PEAK,
        "balance": BALANCE,
        "balance_form": "per layer over all tokens (no padding), mean of layers",
        "tokens": int(data.size),
        "cpu_seconds": round(time.process_time() - begun),
        "torch": torch.__version__,
        "training_tokens_available": {d: len(s) for d, s in ids.items()},
    }
    (TARGET / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


if __name__ == "__main__":
    main()
