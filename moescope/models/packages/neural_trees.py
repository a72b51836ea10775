"""neural-trees: Jordan and Jacobs' mixtures as estimators, fitted for a few steps."""

from typing import Any

import numpy as np
import torch

from ._stack import Ready


def dense() -> Ready:
    """One gate over two experts."""
    return _fitted(1)


def tree() -> Ready:
    """Two levels of two."""
    return _fitted(2)


def _fitted(depth: int) -> Ready:
    from neural_trees import HierarchicalMixtureOfExperts

    random = np.random.default_rng(0)
    features = random.normal(size=(60, 5)).astype(np.float32)
    classes = (features[:, 0] > 0).astype(int) + (features[:, 1] > 0)
    made: Any = HierarchicalMixtureOfExperts(depth=depth, branching_factor=2, max_epochs=3, random_state=0)
    return made.fit(features, classes).model_.eval(), {"x": torch.from_numpy(features[:12])}


READY = {"dense": lambda _, __: dense(), "tree": lambda _, __: tree()}
