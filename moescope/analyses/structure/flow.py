"""From layer to layer: transitions, and whole paths.

* `I(expert; expert in the next layer)`: mutual information of the first choices of one token in neighbouring routers of a
  stack, bits; plug-in, and less its mean under the null (ExFlow 2401.08383 uses the transitions P(e' | e)).
* `distinct paths`: number of different sequences of first choices through all layers of a stack, over the tokens that every
  layer routed; `path entropy`: of their distribution, bits.

Null: each layer's choices shuffled among the tokens of a document on their own, which holds every layer's load in every
document and forgets which choices go together. A number of distinct paths has no bootstrap interval: drawing documents again
loses paths.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures, information
from .._shared.arrays.decision_sample import Sample, shuffles

NULL = "each layer's choices shuffled within documents"
SHUFFLES = 19
PATHS = 20


def _stacks(sample: Sample) -> Iterator[tuple[str, pd.DataFrame]]:
    yield from sample.scope.routers.groupby("stack", sort=False)


def transitions(sample: Sample) -> list[pd.DataFrame]:
    """Mutual information of the first choices of neighbouring routers."""
    orders = list(shuffles(sample.unit, SHUFFLES))
    rows = []
    for _, routers in _stacks(sample):
        for (here, row), (there, other) in pairwise(routers.iterrows()):
            first, second = sample.chosen[here][:, 0].astype(np.int64), sample.chosen[there][:, 0].astype(np.int64)
            known = (first >= 0) & (second >= 0)
            if known.any():
                sizes = int(row["experts"]), int(other["experts"])
                where = {"stack": row["stack"], "layer": row["layer"], "router": here, "subset": f"to layer {other['layer']}"}
                rows += _informed(where, sample, first, second, known, sizes, orders)
    return rows


def _informed(
    where: Any, sample: Sample, first: Array, second: Array, known: Array, sizes: tuple[int, int], orders: list[Array]
) -> list[pd.DataFrame]:
    size = sizes[0] * sizes[1]

    def table(other: Array) -> Array:
        both = known & (other >= 0)
        return np.bincount(first[both] * sizes[1] + other[both], minlength=size).reshape(sizes)

    groups = min(sample.units, 128)
    cell = (sample.unit % groups)[known] * size + first[known] * sizes[1] + second[known]
    by_group = np.bincount(cell, minlength=groups * size).reshape(groups, *sizes)
    draws = st.mutual_information(st.resampled(st.bootstrap_weights(groups, 200), by_group))
    null = np.array([st.mutual_information(table(second[order])) for order in orders])
    common: dict[str, Any] = {
        "source": "Shannon 1948; ExFlow 2401.08383",
        "chance": 0.0,
        "null_name": NULL,
        "tail": "t",
        "n": int(known.sum()),
        "units": len(np.unique(sample.unit[known])),
    }
    name = "I(expert; expert in the next layer) (bits)"
    return [*information(where, name, table(second), draws, null, **common)]


def paths(sample: Sample) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Figures per stack, and its most frequent paths."""
    rows, tables = [], []
    for stack, routers in _stacks(sample):
        first = np.stack([sample.chosen[r][:, 0] for r in routers.index], axis=1)
        (known,) = np.nonzero((first >= 0).all(axis=1))
        if len(routers) < 2 or not len(known):
            continue
        path, unit = first[known], sample.unit[known]
        counts = _counts(path)
        null = np.array([_summary(_counts(_shuffled(path, unit, seed))) for seed in range(SHUFFLES)])
        common: dict[str, Any] = {
            "source": "counted",
            "null": null[:, 0],
            "null_name": NULL,
            "tail": "t",
            "side": "less",
            "n": len(path),
            "units": len(np.unique(unit)),
        }
        distinct, entropy = _summary(counts)
        possible = float(np.prod(routers["experts"].astype(float)))
        rows.append(figures({"stack": stack}, "distinct paths", distinct, chance=_expected(possible, len(path)), **common))
        common |= {"null": null[:, 1], "source": "Shannon 1948"}
        rows.append(figures({"stack": stack}, "path entropy (bits)", entropy, chance=np.log2(possible), **common))
        tables.append(_frequent(str(stack), path, len(path)))
    return rows, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _expected(possible: float, n: int) -> float:
    """Distinct values among n draws from so many equally likely ones."""
    return float(-possible * np.expm1(n * np.log1p(-1 / possible))) if possible > 1 else 1.0


def _codes(path: Array) -> Array:
    """One void value per row, so that rows compare as a whole."""
    packed = np.ascontiguousarray(path.astype(np.int16))
    return packed.view(np.dtype((np.void, packed.dtype.itemsize * packed.shape[1]))).ravel()


def _counts(path: Array) -> Array:
    return np.unique(_codes(path), return_counts=True)[1]


def _summary(counts: Array) -> tuple[float, float]:
    return float(len(counts)), float(st.entropy(counts))


def _shuffled(path: Array, unit: Array, seed: int) -> Array:
    orders = shuffles(unit, path.shape[1], seed)
    return np.stack([path[order, layer] for layer, order in enumerate(orders)], axis=1)


def _frequent(stack: str, path: Array, n: int) -> pd.DataFrame:
    _, place, counts = np.unique(_codes(path), return_index=True, return_counts=True)
    best = np.argsort(-counts, kind="stable")[:PATHS]
    load = [st.shares(np.bincount(column).astype(float)) for column in path.T]
    apart = [float(np.prod([share[e] for share, e in zip(load, path[row])])) for row in place[best]]
    text = [" ".join(map(str, path[row])) for row in place[best]]
    return pd.DataFrame({"stack": stack, "path": text, "n": counts[best], "value": counts[best] / n, "chance": apart})
