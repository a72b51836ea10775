"""Held-out figures of the V-MoE specimen: accuracy under capacity, and what its routers know of class and place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from moescope.models.vmoe import TokenChoice, VMoE
from moescope.models.vmoe.model import VMoEOutput

RATIOS = (0.25, 0.5, 1.0, 1.05, 2.0, 4.0)
BATCH, SHUFFLES, RESAMPLES = 400, 100, 200


def outputs(model: VMoE, images: torch.Tensor) -> Iterator[VMoEOutput]:
    """Forwards over the images in order, 50 groups of 8 at a time."""
    with torch.no_grad():
        for batch in images.split(BATCH):
            yield model(batch)


def capacities(model: VMoE, images: torch.Tensor, labels: np.ndarray) -> list[dict[str, object]]:
    """Accuracy and dropped share per layer, at each capacity ratio, without and with batch priority.

    `gained` and `lost` count images that only batch priority, and only token order, gets right (McNemar's pairs).
    """
    found = []
    for ratio in RATIOS:
        plain, row = _accuracy(model.set_routing(capacity_factor=ratio, batch_priority=False), images, labels)
        sure, first = _accuracy(model.set_routing(batch_priority=True), images, labels)
        pairs = {"gained": int((sure & ~plain).sum()), "lost": int((plain & ~sure).sum())}
        found += [{"capacity_factor": ratio, "batch_priority": False, **row}]
        found += [{"capacity_factor": ratio, "batch_priority": True, **first, **pairs}]
    model.set_routing(capacity_factor=1.05, batch_priority=False)
    return found


def silenced(model: VMoE, images: torch.Tensor, labels: np.ndarray) -> float:
    """Accuracy with every routing weight zero: tokens keep only their residual."""
    handles = [
        layer.mlp.experts.register_forward_pre_hook(lambda module, args: (args[0], _without_weights(args[1])))
        for layer in model.layers
        if hasattr(layer.mlp, "experts")
    ]
    right, _ = _accuracy(model, images, labels)
    for handle in handles:
        handle.remove()
    return round(float(right.mean()), 4)


def _without_weights(routing: TokenChoice) -> TokenChoice:
    return replace(routing, weights=torch.zeros_like(routing.weights))


def _accuracy(model: VMoE, images: torch.Tensor, labels: np.ndarray) -> tuple[np.ndarray, dict[str, object]]:
    right, dropped, lost, places = [], {}, {}, 0
    for out in outputs(model, images):
        right.append(out.logits.argmax(-1).numpy())
        for layer, routing in out.routings.items():
            dropped.setdefault(layer, []).append(routing.dropped.float().mean().item())
            lost.setdefault(layer, []).append(routing.dropped.all(-1).float().mean().item())
            places = routing.capacity
    correct = np.concatenate(right) == labels
    return correct, {
        "places": places,
        "accuracy": round(float(correct.mean()), 4),
        "dropped_assignments": {layer: round(float(np.mean(v)), 4) for layer, v in dropped.items()},
        "tokens_without_expert": {layer: round(float(np.mean(v)), 4) for layer, v in lost.items()},
    }


def information(model: VMoE, images: torch.Tensor, labels: np.ndarray) -> dict[int, dict[str, object]]:
    """Bits that an assignment tells, per layer, with nothing dropped (capacity 4.0) and without noise.

    `class` is I(class; expert), `place` I(place; expert), `class_at_place` I(class; expert | place). Each comes with a
    95 % interval over resampled images and with what labels (for `place`: places of each image) shuffled give.
    """
    model.set_routing(capacity_factor=4.0, batch_priority=False)
    counts = _counts(model, images)
    model.set_routing(capacity_factor=1.05)
    return {layer: _layer(count, labels) for layer, count in counts.items()}


def _counts(model: VMoE, images: torch.Tensor) -> dict[int, np.ndarray]:
    """Assignments (images, places, experts) per layer."""
    found: dict[int, list[np.ndarray]] = {}
    experts, places = model.config.encoder.moe.num_experts, model.config.tokens_per_image
    for out in outputs(model, images):
        for layer, routing in out.routings.items():
            chosen = torch.nn.functional.one_hot(routing.indices, experts).sum(2)
            found.setdefault(layer, []).append(chosen.view(-1, places, experts).float().numpy())
    return {layer: np.concatenate(parts) for layer, parts in found.items()}


def _layer(counts: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    random, n = np.random.default_rng(20), len(labels)
    names = ("class", "place", "class_at_place")
    shuffled = np.array([_bits(counts, random.permutation(labels)) for _ in range(SHUFFLES)])
    again = np.array([_bits(counts, labels, random.multinomial(n, np.full(n, 1 / n))) for _ in range(RESAMPLES)])
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    shuffled[:, 1] = [_mutual(_moved(counts, random).sum(0)) for _ in range(SHUFFLES)]
    found: dict[str, object] = {
        name: {
            "bits": round(float(value), 5),
            "interval": [round(float(low[i]), 5), round(float(high[i]), 5)],
            "shuffled_mean": round(float(shuffled[:, i].mean()), 5),
            "shuffled_max": round(float(shuffled[:, i].max()), 5),
        }
        for i, (name, value) in enumerate(zip(names, _bits(counts, labels)))
    }
    load = counts.sum((0, 1)) / counts.sum()
    found["load"] = [round(float(share), 4) for share in load]
    return found


def _bits(counts: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float, float]:
    members = np.eye(10, dtype=np.float32)[labels].T * (1 if weights is None else weights.astype(np.float32))
    joint = (members @ counts.reshape(len(labels), -1)).reshape(10, *counts.shape[1:])  # class, place, expert
    at = [_mutual(joint[:, place]) for place in range(joint.shape[1])]
    share = joint.sum((0, 2)) / joint.sum()
    return _mutual(joint.sum(1)), _mutual(joint.sum(0)), float(np.dot(share, at))


def _moved(counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Places of every image turned by its own random amount, the class token's place too."""
    places = counts.shape[1]
    turn = (np.arange(places) + random.integers(places, size=(len(counts), 1))) % places
    return np.take_along_axis(counts, turn[:, :, None], axis=1)


def _mutual(joint: np.ndarray) -> float:
    """Mutual information in bits of a table of counts, the plug-in estimate (Cover & Thomas, eq. 2.28)."""
    p = joint.astype(np.float64) / joint.sum()
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    seen = p > 0
    return float((p[seen] * np.log2(p[seen] / independent[seen])).sum())
