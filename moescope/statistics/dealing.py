"""Values dealt anew to whole documents, for conditions that change within a document as well as for those that do not."""

import numpy as np

from ._types import Array


def dealt(counts: Array, draws: int, seed: int = 0) -> Array:
    """(draws, values, cells): sums over documents of counts (documents, values, cells) when values are dealt anew.

    What a document has at one value stays whole. First the sets of values are dealt among documents that have equally many (a
    class of the whole document goes to another one), then the values of each document are shuffled among what it has at them
    (timesteps that every document goes through). Load and each document's routing are held; one document alone can show
    nothing, as its table is the same whatever its values are called.
    """
    unit, value = np.nonzero(counts.any(axis=2))
    rows, rng = counts[unit, value].astype(np.float32), np.random.default_rng(seed)
    groups = _alike(unit)
    found = np.empty((draws, counts.shape[1], counts.shape[2]), dtype=np.float32)
    values, new = np.arange(counts.shape[1])[:, None], value.copy()
    for draw in found:
        for places in groups:
            new[places] = rng.permuted(rng.permutation(value[places], axis=0), axis=1)
        draw[:] = (new == values).astype(np.float32) @ rows
    return found.astype(float)


def _alike(unit: Array) -> list[Array]:
    """Rows of documents with equally many rows: arrays (documents, rows of each); `unit` is sorted."""
    _, start, many = np.unique(unit, return_index=True, return_counts=True)
    return [start[many == m][:, None] + np.arange(m) for m in np.unique(many)]
