"""What capacity would drop when documents are drawn again: from counts by pool, rank, expert and document.

With c_r the assignments of rank r to an expert in a pool and C its places, first choices take places first: of rank r
max(0, c_r - max(0, C - sum of c of earlier ranks)) are lost. In token order which of them are lost has nothing to do with
their weights, so that they carry that share of the rank's weight, on average over orders; that average is what is drawn here.
(The sums that each document lost would not do: late documents of a batch lose more than early ones, whatever they say.)
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from ... import statistics as st
from ...statistics import Array

MOST = 400_000  # cells of a router
KEYS = ["forward", "iteration", "pool"]


def redealt(cells: pd.DataFrame, units: int, experts: int, ratios: tuple[float, ...], multiple: int) -> Array | None:
    """(draws, ratios, 2): shares of assignments and of weight dropped in token order, or None where there are too many pools.

    `cells`: of one router, frame (KEYS, tokens: of the pool, k, unit, rank, expert, n, weight).
    """
    pools, first = cells.groupby(KEYS, dropna=False).ngroup().to_numpy(), cells.groupby(KEYS, dropna=False).first()
    width = int(cells["rank"].max()) + 1
    shape = len(first), width, experts
    if np.prod(shape) > MOST:
        return None
    column = np.ravel_multi_index((pools, cells["rank"], cells["expert"]), shape)
    weights = st.bootstrap_weights(units).T
    n, w = (_drawn(cells["unit"], column, cells[c], units, shape, weights) for c in ("n", "weight"))
    whole = np.bincount(pools, cells["n"], minlength=len(first))[:, None]
    wanted = (first["tokens"] * first["k"]).to_numpy(float)[:, None] * n.sum((1, 2)) / whole / experts
    found = [_lost(n, w, np.ceil(np.ceil(np.round(wanted * ratio, 9)) / multiple) * multiple) for ratio in ratios]
    return np.stack(found, axis=1)


def _drawn(unit: Any, column: Array, value: Any, units: int, shape: tuple[int, int, int], weights: Array) -> Array:
    """(pools, ranks, experts, draws)."""
    table = sparse.csr_matrix((value.to_numpy(np.float32), (column, unit)), shape=(int(np.prod(shape)), units))
    return np.asarray(table @ weights.astype(np.float32)).reshape(*shape, -1)


def _lost(n: Array, weight: Array, places: Array) -> Array:
    """(draws, 2) from (pools, ranks, experts, draws) and places (pools, draws)."""
    before = np.cumsum(n, axis=1) - n
    lost = np.maximum(0, n - np.maximum(0, places[:, None, None] - before))
    mean = np.divide(weight, n, out=np.zeros_like(weight), where=n > 0)
    total, mass = n.sum((0, 1, 2)), weight.sum((0, 1, 2))
    return np.stack(
        [lost.sum((0, 1, 2)) / np.maximum(total, 1), (lost * mean).sum((0, 1, 2)) / np.maximum(mass, 1e-12)], axis=1
    )
