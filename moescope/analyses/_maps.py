"""Clusters and maps of signatures, with what they agree on and how stable they are."""

import warnings
from itertools import combinations

import numpy as np
import pandas as pd

from ._answer import figures

Ints = np.ndarray
Floats = np.ndarray
NEIGHBOURS = 10


def cluster(x: Floats, clusters: int, starts: int = 10) -> Ints:
    """(items,): k-means labels, the seed fixed; the first components of `x` where it is wide."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if x.shape[1] > 50 and len(x) > 50:
        u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        x = u[:, :50] * s[:50]
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return np.asarray(KMeans(clusters, n_init=starts, random_state=0).fit_predict(x))


def agreement(labels: Ints, found: Ints) -> tuple[float, float]:
    """Adjusted mutual information and adjusted Rand index of two partitions."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    return float(adjusted_mutual_info_score(labels, found)), float(adjusted_rand_score(labels, found))


def neighbours(x: Floats, count: int) -> Ints:
    """(items, count): the nearest others, in Euclidean distance."""
    square = (x**2).sum(1)
    distance = square[:, None] + square - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    return np.asarray(np.argpartition(distance, count, axis=1)[:, :count])


def shared(a: Ints, b: Ints) -> float:
    """Mean share of neighbours that two neighbourhoods have in common."""
    return float(np.mean([len(np.intersect1d(p, q)) / len(p) for p, q in zip(a, b)]))


def maps(x: Floats, items: pd.DataFrame, what: str, seeds: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`items` with x and y for each seed, and figures of stability and faithfulness (chance: neighbours drawn at random)."""
    from scipy.spatial import procrustes

    count = min(NEIGHBOURS, len(x) - 2)
    made = [_umap(x, seed, count) for seed in range(seeds)]
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


def _umap(x: Floats, seed: int, count: int) -> Floats:
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(UMAP(n_neighbors=count + 1, random_state=seed, n_jobs=1).fit_transform(x))
