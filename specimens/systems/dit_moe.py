"""Trains a small DiT-MoE on Fashion-MNIST: 4 layers, 2 of 8 experts and 2 shared ones. About a minute of CPU.

`python -m specimens.systems.dit_moe`; needs Debian's package dataset-fashion-mnist. Rectified flow; a tenth of the pictures are
shown without their class; the balancing loss (0.01, as published) is taken for each layer over all patches of a batch.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from specimens.systems.common import begun, fit, parameters, ship
from specimens.systems.pictures import flow_loss, heldout, training
from specimens.training.shared import balance

NAME, SEED, BATCH, STEPS, PEAK, BALANCE, NONE = "dit_moe", 20, 32, 500, 2e-3, 0.01, 10
BUILT: dict[str, Any] = {"hidden": 64, "layers": 4, "experts": 8, "channels": 1, "size": 28, "patch": 4}


@torch.no_grad()
def heldout_loss(model: nn.Module) -> float:
    """Of the 400 pictures, each with the same noise and the same t every time it is asked."""
    pictures, labels = heldout()
    return float(flow_loss(model, pictures, labels, torch.Generator().manual_seed(1)))


def train(model: nn.Module, steps: int) -> float:
    """In place; CPU seconds."""
    pictures, labels = training()
    generator, said = torch.Generator().manual_seed(SEED), []
    gates = [block.moe.gate for block in model.blocks]  # type: ignore[union-attr]
    hooks = [gate.register_forward_hook(lambda *call: said.append(call[-1])) for gate in gates]

    def loss_of(_: int) -> Tensor:
        said.clear()
        some = torch.randint(len(pictures), (BATCH,), generator=generator)
        hidden = torch.rand(BATCH, generator=generator) < 0.1
        loss = flow_loss(model, pictures[some], labels[some].masked_fill(hidden, NONE), generator)
        kept = torch.ones(len(said[0][0]), dtype=torch.bool)
        return loss + BALANCE * torch.stack([balance(logits, chosen, kept) for chosen, _, logits in said]).mean()

    seconds = fit(model, loss_of, steps, PEAK)
    for hook in hooks:
        hook.remove()
    return seconds


def main() -> None:
    """Trains and ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    steps = parser.parse_args().steps
    model = begun(NAME, BUILT, SEED)
    before = heldout_loss(model)
    seconds = train(model, steps)
    recipe = {
        "data": "Fashion-MNIST, training set", "seed": SEED, "steps": steps, "batch": BATCH, "peak_learning_rate": PEAK,
        "balance": BALANCE, "parameters": parameters(model), "cpu_seconds": round(seconds),
        "heldout_loss": {"before": round(before, 4), "after": round(heldout_loss(model), 4)},
    }  # fmt: skip
    ship(NAME, model, BUILT, recipe)


if __name__ == "__main__":
    main()
