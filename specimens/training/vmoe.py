"""Trains the V-MoE specimen on Fashion-MNIST: top-2 of 8 experts in each of four layers. About 8 minutes on one core.

`python -m specimens.training.vmoe` from the repository root. The recipe is the authors' in small
(configs/vmoe_paper/common.py):
capacity factor 1.05 without batch priority, groups of 8 images, noise 1/E, both auxiliary losses at 0.005.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from moescope.models.vmoe import VMoE, VMoEConfig
from moescope.models.vmoe.images import prepare
from specimens.corpora.fashion import load
from specimens.measures.vmoe import capacities, information, silenced

TARGET = Path("moescope/models/specimens/vmoe")
SEED, BATCH, EPOCHS, PEAK, WARMUP, DECAY = 20, 64, 3, 2e-3, 150, 0.05


def configuration() -> VMoEConfig:
    """Four layers, all of them experts, since beside dense layers the experts of so small a model hardly matter.

    A group of 8 images is 400 tokens, as in the authors' S/32.
    """
    dispatcher = {"name": "einsum", "capacity_factor": 1.05, "batch_priority": False}
    losses = {"importance_loss_weight": 0.005, "load_loss_weight": 0.005}
    router = {"num_selected_experts": 2, "noise_std": 1.0, **losses, "dispatcher": dispatcher}
    moe = {"num_experts": 8, "layers": [0, 1, 2, 3], "group_size": 400, "split_rngs": False, "router": router}
    encoder = {"num_layers": 4, "mlp_dim": 128, "num_heads": 4, "moe": moe}
    shape = {"num_classes": 10, "patch_size": [4, 4], "hidden_size": 64, "channels": 1, "image_size": [28, 28]}
    return VMoEConfig.from_dict({**shape, "encoder": encoder})


def untrained() -> VMoE:
    """The model as training begins: made again from the seed."""
    torch.manual_seed(SEED)
    return VMoE(configuration()).eval()


def rate(step: int, steps: int) -> float:
    """Learning rate: linear warm-up, then linear decay, as the authors' schedule."""
    return PEAK * min((step + 1) / WARMUP, max(steps - step, 1) / (steps - WARMUP))


def optimizer(model: VMoE) -> torch.optim.Optimizer:
    """AdamW; kernels decay, biases, norms and positions do not."""
    kernels = [p for n, p in model.named_parameters() if p.dim() > 1 and not n.endswith("_bias") and "embedding" not in n]
    others = [p for p in model.parameters() if all(p is not kernel for kernel in kernels)]
    groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.999))


def train(model: VMoE, images: torch.Tensor, labels: torch.Tensor) -> list[dict[str, float]]:
    """Train in place; one line of history every 100 steps."""
    optimiser, order = optimizer(model.train()), torch.Generator().manual_seed(SEED)
    steps, history, step = EPOCHS * (len(images) // BATCH), [], 0
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=order)[: steps // EPOCHS * BATCH].split(BATCH):
            for group in optimiser.param_groups:
                group["lr"] = rate(step, steps)
            out = model(images[batch])
            task = torch.nn.functional.cross_entropy(out.logits, labels[batch])
            optimiser.zero_grad()
            (task + out.auxiliary_loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if step % 100 == 0 or step == steps - 1:
                line = {"step": step, "loss": round(task.item(), 4), "auxiliary": round(out.auxiliary_loss.item(), 5)}
                history.append(line)
                print(line, flush=True)
            step += 1
    model.eval()
    return history


def report(model: VMoE, seconds: float, history: list[dict[str, float]]) -> dict[str, object]:
    """Every figure of CARD.md, from the 10,000 test images."""
    raw, labels = load("t10k")
    images = torch.from_numpy(prepare(raw, model.config))
    return {
        "recipe": {"seed": SEED, "batch": BATCH, "epochs": EPOCHS, "peak": PEAK, "weight_decay": DECAY},
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_cpu_seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "test_images": len(labels),
        "accuracy_with_experts_silenced": silenced(model, images, labels),
        "capacity": capacities(model, images, labels),
        "information": {
            "trained": information(model, images, labels),
            "untrained": information(untrained(), images, labels),
        },
        "history": history,
    }


def main() -> None:
    """Train, save, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure the saved specimen again, without training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    old = json.loads((TARGET / "metrics.json").read_text()) if arguments.measure else {}
    if arguments.measure:
        model, seconds, history = VMoE.from_pretrained(TARGET), old["training_cpu_seconds"], old["history"]
    else:
        raw, labels = load("train")
        model, begin = untrained(), time.process_time()
        images = torch.from_numpy(prepare(raw, model.config))
        history = train(model, images, torch.from_numpy(np.asarray(labels)))
        seconds = time.process_time() - begin
        model.save_pretrained(TARGET)
    (TARGET / "metrics.json").write_text(json.dumps(report(model, seconds, history), indent=1) + "\n")


if __name__ == "__main__":
    main()
