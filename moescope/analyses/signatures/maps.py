"""Clusters and maps of signatures, with what they agree on and how stable they are."""

import warnings
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from ... import statistics as st
from .._shared.answer import figures

Ints = np.ndarray
Floats = np.ndarray
NEIGHBOURS = 10


def tree(x: Floats) -> Floats:
    """Ward's hierarchy of the rows of `x`; the first 50 components where it is wide."""
    from scipy.cluster.hierarchy import linkage

    if min(x.shape) > 50:
        u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        x = u[:, :50] * s[:50]
    return np.asarray(linkage(x, method="ward"))


def cut(hierarchy: Floats, clusters: int) -> Ints:
    """(items,): the hierarchy cut into so many clusters."""
    from scipy.cluster.hierarchy import fcluster

    return np.asarray(fcluster(hierarchy, clusters, criterion="maxclust")) - 1


class Agreement:
    """Adjusted mutual information (mean of entropies, Vinh et al. 2010) and adjusted Rand index with one clustering.

    What is expected by chance depends on the sizes of the classes alone: permuted labels need it once.
    """

    def __init__(self, labels: Ints, found: Ints) -> None:
        from sklearn.metrics.cluster import expected_mutual_information

        self.found, self.shape = found, (int(labels.max()) + 1, int(found.max()) + 1)
        table = self._table(labels)
        keep = table[table.sum(1) > 0][:, table.sum(0) > 0].astype(np.int64)
        self.expected = expected_mutual_information(sparse.csr_matrix(keep), len(labels)) / np.log(2)
        self.mean = (st.entropy(table.sum(1)) + st.entropy(table.sum(0))) / 2

    def _table(self, labels: Ints) -> Floats:
        flat = np.bincount(labels * self.shape[1] + self.found, minlength=self.shape[0] * self.shape[1])
        return np.asarray(flat.reshape(self.shape))

    def __call__(self, labels: Ints) -> tuple[float, float]:
        """Both indices for `labels` with the class sizes given at first; 0 where there is nothing to agree on."""
        table = self._table(labels)
        information = float(st.mutual_information(table))
        reach = self.mean - self.expected
        same, rows, columns, pairs = (_pairs(x) for x in (table, table.sum(1), table.sum(0), table.sum()))
        chance = rows * columns / max(pairs, 1)
        span = (rows + columns) / 2 - chance
        return float((information - self.expected) / reach) if reach > 1e-12 else 0.0, (same - chance) / span if span else 0.0


def _pairs(counts: Any) -> float:
    return float(np.sum(counts * (counts - 1.0)) / 2)


def neighbours(x: Floats, count: int) -> Ints:
    """(items, count): the nearest others, in Euclidean distance."""
    square = (x**2).sum(1)
    distance = square[:, None] + square - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    return np.asarray(np.argpartition(distance, count, axis=1)[:, :count])


def shared(a: Ints, b: Ints) -> float:
    """Mean share of neighbours that two neighbourhoods have in common."""
    return float(np.mean([len(np.intersect1d(p, q)) / len(p) for p, q in zip(a, b)]))


def map_rows(x: Floats, items: pd.DataFrame, what: str, seeds: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`items` with x and y for each seed, and figures of stability and faithfulness (chance: neighbours drawn at random)."""
    from scipy.spatial import procrustes

    count = min(NEIGHBOURS, len(x) - 2)
    close = _graph(x, count)
    made = [_umap(x, seed, count, close) for seed in range(seeds)]
    near, true = [neighbours(m, count) for m in made], neighbours(x, count)
    pairs = list(combinations(range(seeds), 2))
    chance = count / (len(x) - 1)
    rows = [
        ("map faithfulness", float(np.mean([shared(n, true) for n in near])), chance, "neighbours kept from signature space")
    ]
    if pairs:
        overlap = float(np.mean([shared(near[a], near[b]) for a, b in pairs]))
        disparity = float(np.mean([procrustes(made[a], made[b])[2] for a, b in pairs]))
        rows.append(("map stability", overlap, chance, "neighbours common to two seeds"))
        rows.append(("map disparity", disparity, 1.0, "Procrustes disparity of two seeds, 0 = same shape"))
    frames = [figures({"subset": what}, n, v, chance=c, n=len(x), source=f"UMAP; {s}") for n, v, c, s in rows]
    table = pd.concat([items.assign(seed=seed, x=m[:, 0], y=m[:, 1]) for seed, m in enumerate(made)], ignore_index=True)
    return table, pd.concat(frames, ignore_index=True)


def _graph(x: Floats, count: int) -> tuple[Ints, Floats, None]:
    """Each row and its nearest others, and their distances: found once for all seeds, exactly."""
    from sklearn.neighbors import NearestNeighbors

    distance, near = NearestNeighbors(n_neighbors=count + 1, algorithm="brute").fit(x).kneighbors(x)
    return near, distance.astype(np.float32), None


def _umap(x: Floats, seed: int, count: int, close: tuple[Ints, Floats, None]) -> Floats:
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = UMAP(n_neighbors=count + 1, random_state=seed, n_jobs=1, precomputed_knn=close)
        return np.asarray(made.fit_transform(x))
