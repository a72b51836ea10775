"""The shipped V-MoE: it loads, classifies images it never saw, and its twin comes out of the seed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moescope.models.vmoe import VMoE
from moescope.models.vmoe.images import prepare
from specimens.training.vmoe import configuration, untrained

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "moescope" / "models" / "specimens" / "vmoe"
RATIOS = (0.25, 0.5, 1.0, 1.05, 2.0, 4.0)


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    arrays = np.load(ROOT / "datasets" / "fashion-mnist" / "images.npz")
    return arrays["images"], arrays["labels"]


def accuracy(model: VMoE, held_out: tuple[np.ndarray, np.ndarray]) -> float:
    images, labels = held_out
    with torch.no_grad():
        logits = model(torch.from_numpy(prepare(images, model.config))).logits
    return float((logits.argmax(-1).numpy() == labels).mean())


def test_held_out_images_are_balanced(held_out: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = held_out
    assert (images.shape, images.dtype) == ((400, 28, 28), np.uint8)
    assert np.bincount(labels).tolist() == [40] * 10


def test_it_knows_more_than_its_untrained_twin(held_out: tuple[np.ndarray, np.ndarray]) -> None:
    assert accuracy(VMoE.from_pretrained(FOLDER), held_out) > 0.8
    assert accuracy(untrained(), held_out) < 0.3


def test_full_experts_cost_accuracy_and_priority_saves_some(held_out: tuple[np.ndarray, np.ndarray]) -> None:
    model = VMoE.from_pretrained(FOLDER)
    roomy = accuracy(model.set_routing(capacity_factor=4.0), held_out)
    tight = accuracy(model.set_routing(capacity=8), held_out)
    sure = accuracy(model.set_routing(batch_priority=True), held_out)
    assert roomy > sure > tight


def test_the_saved_config_is_the_recipes() -> None:
    assert VMoE.from_pretrained(FOLDER).config == configuration()


def test_the_twin_is_made_again_from_the_seed() -> None:
    first, second = untrained().state_dict(), untrained().state_dict()
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_the_figures_cover_every_capacity_and_layer() -> None:
    metrics = json.loads((FOLDER / "metrics.json").read_text())
    rows = [(row["capacity_factor"], row["batch_priority"]) for row in metrics["capacity"]]
    assert rows == [(ratio, priority) for ratio in RATIOS for priority in (False, True)]
    layers = [str(layer) for layer in configuration().encoder.moe.layers]
    assert [list(metrics["information"][which]) for which in ("trained", "untrained")] == [layers, layers]
