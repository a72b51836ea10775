"""Fashion-MNIST from Debian's package `dataset-fashion-mnist`, and the held-out images that datasets/ ships.

`python -m specimens.corpora.fashion` writes datasets/fashion-mnist/images.npz again.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from moescope.errors import InputError

SOURCE = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path("datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PER_CLASS = 40


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 28, 28) and labels int64 (N,) of 'train' (60,000) or 't10k' (10,000)."""
    if not SOURCE.is_dir():
        raise InputError("Fashion-MNIST is not on this machine: install Debian's package dataset-fashion-mnist.")
    images = gzip.decompress((SOURCE / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((SOURCE / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def ship() -> None:
    """The first 40 test images of every class, in the test set's own order."""
    images, labels = load("t10k")
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:PER_CLASS] for c in range(len(CLASSES))]))
    TARGET.mkdir(parents=True, exist_ok=True)
    parts = {"images": images[chosen], "labels": labels[chosen].astype(np.uint8), "class_names": np.array(CLASSES)}
    np.savez_compressed(TARGET / "images.npz", **parts)


if __name__ == "__main__":
    ship()
