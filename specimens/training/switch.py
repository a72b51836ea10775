"""Trains the Switch specimen and its lopsided twin: one seed, one corpus, one recipe, two balancing losses.

`python -m specimens.training.switch` asks every layer for balance over the batch. `--joined` takes Transformers' own loss,
which joins the sparse layers and averages within each sequence, and of which there are two terms instead of four: the twin is
the patient of the health checks, not an experiment that isolates one of these differences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from specimens.corpora.corpus import build
from specimens.corpora.spans import corrupted
from specimens.corpora.tokens import SENTINELS, VOCABULARY, rows, save_tokenizer, streams, train_tokenizer
from specimens.training.shared import balance, learning_rate, optimizer, save

FOLDER = Path("moescope/models/specimens")
UNTRAINED = Path("work-specimens/switch-untrained")
SEED, LENGTH, BATCH, STEPS, PEAK, BALANCE = 20, 128, 16, 2200, 2e-3, 0.02
Model = SwitchTransformersForConditionalGeneration


def configuration() -> SwitchTransformersConfig:
    """Four and four layers, every second sparse, eight experts of which each takes 24 tokens of a sequence at most."""
    return SwitchTransformersConfig(
        vocab_size=VOCABULARY,
        d_model=128,
        d_kv=32,
        d_ff=192,
        num_heads=4,
        num_layers=4,
        num_decoder_layers=4,
        num_sparse_encoder_layers=2,
        num_sparse_decoder_layers=2,
        num_experts=8,
        expert_capacity=24,
        dropout_rate=0.0,
        router_jitter_noise=0.0,
        router_z_loss_coef=0.0,
        router_aux_loss_coef=BALANCE,
        add_router_probs=False,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=0,
        n_positions=LENGTH,
    )


def joined_loss(model: Model, source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross-entropy, balancing loss) as Transformers computes them, layers joined."""
    out = model(input_ids=source, labels=target, output_router_logits=True)
    uneven = out.encoder_aux_loss + out.decoder_aux_loss
    return out.loss - BALANCE * uneven, uneven


def layered_loss(model: Model, source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross-entropy, sum of the balancing losses of the layers, each over its tokens that are not padding)."""
    spoken: list[torch.Tensor] = []
    routers = [m for m in model.modules() if type(m).__name__ == "SwitchTransformersTop1Router"]
    hooks = [r.register_forward_hook(lambda _m, _i, out: spoken.append(out[2].flatten(0, 1))) for r in routers]
    loss = model(input_ids=source, labels=target).loss
    for hook in hooks:
        hook.remove()
    kept = {source.numel(): source.flatten() != 0, target.numel(): target.flatten() != 0}
    uneven = [balance(logits, logits.argmax(-1, keepdim=True), kept[len(logits)]) for logits in spoken]
    return loss, torch.stack(uneven).sum()


def train(source: np.ndarray, target: np.ndarray, steps: int, loss_of: Callable[..., tuple]) -> Model:
    """Trains from the seed; the model before its first step is kept for the comparison with no training at all."""
    torch.manual_seed(SEED)
    model = Model(configuration())
    save(model, UNTRAINED)
    stepper, begun = optimizer(model, PEAK), time.process_time()
    for step in range(steps):
        for group in stepper.param_groups:
            group["lr"] = learning_rate(step, steps, PEAK)
        part = slice(step * BATCH, (step + 1) * BATCH)
        entropy, uneven = loss_of(model, torch.from_numpy(source[part]), torch.from_numpy(target[part]))
        (entropy + BALANCE * uneven).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        stepper.zero_grad()
        if step % 50 == 0:
            spent = time.process_time() - begun
            print(f"step {step} loss {entropy:.3f} balance {uneven:.3f} cpu {spent:.0f} s", flush=True)
    return model


def main() -> None:
    """Corpus, training, weights and recipe; the figures come from `python -m specimens.measures.measure`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--joined", action="store_true", help="train the twin, switch-collapsed")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training, _ = build()
    tokenizer = train_tokenizer(training)
    data = rows(streams(tokenizer, training), LENGTH, arguments.steps * BATCH, SEED)
    sentinels = [tokenizer.token_to_id(s) for s in SENTINELS]
    source, target = corrupted(data, sentinels, tokenizer.token_to_id("</s>"), SEED)
    begun = time.process_time()
    model = train(source, target, arguments.steps, joined_loss if arguments.joined else layered_loss)
    folder = FOLDER / ("switch-collapsed" if arguments.joined else "switch")
    save(model, folder)
    save_tokenizer(tokenizer, folder, causal=False)
    form = "Transformers' own, layers joined" if arguments.joined else "per layer over tokens that are not padding, summed"
    recipe = {
        "seed": SEED,
        "steps": arguments.steps,
        "batch": BATCH,
        "length": LENGTH,
        "encoder_length": source.shape[1],
        "decoder_length": target.shape[1],
        "peak_learning_rate": PEAK,
        "balance": BALANCE,
        "balance_form": form,
        "tokens": int(data.size),
        "cpu_seconds": round(time.process_time() - begun),
        "torch": torch.__version__,
    }
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


if __name__ == "__main__":
    main()
