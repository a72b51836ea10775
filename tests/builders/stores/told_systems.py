"""Made-up runs of systems beyond language models: a denoiser, recursions, a tree, pictures and words."""

from pathlib import Path

import numpy as np
import told

STEPS = (900.0, 500.0, 100.0)
ROUTER = {"router": 0, "experts": 3, "top_k": 1}


def denoiser(path: Path) -> Path:
    """Six images of four patches; at step s patch p of image d goes to expert (s + p) % 3, at the last step always to 2."""
    place = np.arange(24) % 4
    chosen = np.stack([place % 3, (place + 1) % 3, np.full(24, 2)])[:, :, None]
    entropy = np.repeat([[0.1], [0.2], [0.3]], 24, axis=1)
    return told.written(path, [ROUTER], {0: chosen}, told.timesteps(*STEPS), tokens=4, side=(2, 2), entropy={0: entropy})


def recursions(path: Path) -> Path:
    """Six texts of four tokens, as deep as their position, but for the last, which no router looks at twice."""
    depth = np.tile([0, 1, 2, 1], 6)
    chosen = {r: np.where(depth > r, 0, -1)[None, :, None] for r in (0, 1)}
    routers = [{"router": r, "experts": 1, "top_k": 1, "kind": "depth", "layer": 3, "block_type": f"block.{r}"} for r in (0, 1)]
    labels = {"upos": np.array(["DET", "NOUN", "VERB", "NOUN"] * 6)}
    return told.written(path, routers, chosen, [], tokens=4, units=("text",), text=True, labels=labels)


def tree(path: Path) -> Path:
    """A root of two branches, the first of which has two leaves: weights 3/4 and 1/4, then a half each."""
    routers = [{"router": 0, "experts": 2, "kind": "tree", "name": "root"},
               {"router": 1, "experts": 2, "kind": "tree", "name": "left", "parent_router": "root",
                "parent_expert": 0}]  # fmt: skip
    both = np.tile([0, 1], (1, 6, 1))
    weights = {0: np.tile([0.75, 0.25], (1, 6, 1)), 1: np.zeros((1, 6, 2)) + 0.5}
    return told.written(path, routers, {0: both, 1: both}, [], weights=weights)


def pictures_and_words(path: Path) -> Path:
    """Twelve documents of a patch and a word each, whose experts are others."""
    chosen = np.tile([0, 1], 12)[None, :, None]
    chosen[0, ::4] = 2
    entropy = np.tile([0.2, 0.4], 12)[None, :]
    return told.written(path, [ROUTER], {0: chosen}, [], tokens=2, units=("patch", "text"), entropy={0: entropy})
