"""Trains a small LIMoE on Fashion-MNIST pictures and sentences that name their class. About a minute of CPU.

`python -m specimens.systems.limoe`; needs Debian's package dataset-fashion-mnist. A batch is two groups of the ten classes, and
a picture is told from the ten texts of its group, so that no other text of the ten is right too. The entropy losses are the
model's own. `--entropy 0 --folder build/limoe-plain` trains the same model without them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer

from specimens.systems.common import TARGET, begun, fit, parameters, ship
from specimens.systems.pictures import heldout, training

NAME, SEED, GROUPS, STEPS, PEAK, ENTROPY = "limoe", 20, 2, 450, 2e-3, 0.04
TOKENIZER, VOCABULARY = "moescope/models/specimens/mixtral", 4096
BUILT: dict[str, Any] = {
    "layers": 4, "hidden": 64, "count": 8, "image_size": 28, "patch_size": 4, "channels": 1, "vocabulary": VOCABULARY + 1
}  # fmt: skip
NAMES = ("T-shirt", "pair of trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TEMPLATES = (
    "a photo of a {}",
    "a small grey picture of a {}",
    "this is a {}",
    "one {} on a black ground",
    "a {}, as it is sold",
)


def texts(labels: Tensor, templates: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (B, S) and mask (B, S), filled up at the end, of sentences for classes (B,) by templates (B,)."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    said = [TEMPLATES[t].format(NAMES[c]) for c, t in zip(labels.tolist(), templates.tolist())]
    made = tokenizer(said, return_tensors="pt", padding=True)
    return made.input_ids, made.attention_mask


def inputs(pictures: Tensor, ids: Tensor, mask: Tensor, patches: int = 49) -> dict[str, Tensor]:
    """What the model takes: the id that stands for a patch, `patches` times, before each text."""
    before = ids.new_full((len(ids), patches), VOCABULARY)
    return {
        "pixel_values": pictures,
        "input_ids": torch.cat([before, ids], 1),
        "attention_mask": torch.cat([torch.ones_like(before), mask], 1),
    }


def loss_of_groups(out: Any, entropy: float) -> Tensor:
    """Contrast within groups of ten, both ways, and `entropy` times the local and global entropies of both modalities."""
    groups = len(out.logits) // 10
    logits = torch.stack([out.logits[g * 10 : g * 10 + 10, g * 10 : g * 10 + 10] for g in range(groups)])
    own = torch.arange(10).expand(groups, 10)
    contrast = (F.cross_entropy(logits.transpose(1, 2), own) + F.cross_entropy(logits, own)) / 2
    return contrast + entropy * torch.stack(list(out.losses.values())).sum()


def grouped(labels: Tensor, groups: int, generator: torch.Generator) -> Tensor:
    """(groups · 10,) pictures drawn with replacement, one of each class in every group."""
    members = [(labels == c).nonzero()[:, 0] for c in range(10)]
    drawn = [m[torch.randint(len(m), (groups,), generator=generator)] for m in members]
    return torch.stack(drawn, 1).flatten()


def evaluation() -> tuple[dict[str, Tensor], Tensor]:
    """The 400 held-out pictures in groups of the ten classes, each once, with templates in turn; and their classes."""
    pictures, labels = heldout()
    order = torch.stack([(labels == c).nonzero()[:, 0] for c in range(10)], 1).flatten()
    ids, mask = texts(labels[order], torch.arange(len(order)) // 10 % len(TEMPLATES))
    return inputs(pictures[order], ids, mask), labels[order]


@torch.no_grad()
def heldout_loss(model: nn.Module, batch: int = 20) -> tuple[float, float]:
    """Contrastive loss in groups of ten (even: log 10 = 2.303), and how many pictures find their text among ten."""
    given, _ = evaluation()
    outs = [model(**{k: v[i : i + batch] for k, v in given.items()}) for i in range(0, 400, batch)]
    right = [o.logits[g : g + 10, g : g + 10].argmax(1) == torch.arange(10) for o in outs for g in range(0, batch, 10)]
    return float(torch.stack([loss_of_groups(o, 0.0) for o in outs]).mean()), float(torch.cat(right).float().mean())


def train(model: nn.Module, steps: int, entropy: float) -> float:
    """In place; CPU seconds."""
    pictures, labels = training()
    generator = torch.Generator().manual_seed(SEED)
    classes, ways = torch.arange(10).repeat_interleave(len(TEMPLATES)), torch.arange(len(TEMPLATES)).repeat(10)
    ids, mask = texts(classes, ways)

    def loss_of(_: int) -> Tensor:
        some = grouped(labels, GROUPS, generator)
        said = labels[some] * len(TEMPLATES) + torch.randint(len(TEMPLATES), (len(some),), generator=generator)
        return loss_of_groups(model(**inputs(pictures[some], ids[said], mask[said])), entropy)

    return fit(model, loss_of, steps, PEAK)


def main() -> None:
    """Trains and ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--entropy", type=float, default=ENTROPY)
    parser.add_argument("--folder", type=Path, default=TARGET)
    asked = parser.parse_args()
    model = begun(NAME, BUILT, SEED)
    before = heldout_loss(model)
    seconds = train(model, asked.steps, asked.entropy)
    after = heldout_loss(model)
    recipe = {
        "data": "Fashion-MNIST, training set, and five templates", "seed": SEED, "steps": asked.steps, "batch": GROUPS * 10,
        "peak_learning_rate": PEAK, "entropy": asked.entropy, "parameters": parameters(model), "cpu_seconds": round(seconds),
        "heldout_loss": {"before": round(before[0], 4), "after": round(after[0], 4)},
        "heldout_found": {"before": round(before[1], 4), "after": round(after[1], 4)},
    }  # fmt: skip
    ship(NAME, model, BUILT, recipe, asked.folder)


if __name__ == "__main__":
    main()
