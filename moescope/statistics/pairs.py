"""How often two experts meet by chance, where every token takes k different ones and every group of tokens its loads.

The distribution of least assumptions with given loads is that of independent choices given their number (conditional Bernoulli;
Chen & Liu 1997, Statist. Sinica 7): a set S has the weight Π_{e in S} w_e. Swapping experts between tokens draws from it, to order
1 / n² for n tokens; here its pairs are computed, without an error of their own.
"""

import numpy as np

from ._types import Array

MANY = 12  # experts a token from which sums of products lose digits, and Hájek's approximation is near enough
STEPS, NEAR = 200, 1e-6


def meetings(load: Array, tokens: Array, k: int) -> Array:
    """(E, E): tokens expected to hold both experts, 0 on the diagonal; `load` (groups, E) sums to k `tokens` (groups,)."""
    if k < 2:
        return np.zeros((load.shape[1],) * 2)
    if 2 * k > load.shape[1]:  # those left out are fewer, and meet by the same rule
        missed = tokens[:, None] - load
        both = tokens.sum() - missed.sum(0)[:, None] - missed.sum(0) + meetings(missed, tokens, load.shape[1] - k)
        return np.asarray(both * (1 - np.eye(len(both))))
    share = np.clip(load / np.maximum(tokens, 1)[:, None], 0, 1 - 1e-9)
    if k > MANY:
        return _hajek(share, tokens)
    weight = weights(share, k)
    e = _elementary(weight, k)
    found = np.zeros((load.shape[1],) * 2)
    for a in range(k - 1):
        for b in range(a, k - 1 - a):
            by = (-1.0) ** (a + b) * tokens * e[k - 2 - a - b] / np.maximum(e[k], 1e-300)
            part = (by[:, None] * weight ** (a + 1)).T @ weight ** (b + 1)
            found += part if a == b else part + part.T
    np.fill_diagonal(found, 0)
    return np.maximum(found, 0)


def weights(share: Array, k: int) -> Array:
    """(groups, E): w with which each expert is chosen in `share` of the tokens; sum 1."""
    w = share / np.maximum(share.sum(1, keepdims=True), 1e-300)
    for _ in range(STEPS):
        chosen = _chosen(w, k)
        if np.abs(chosen - share).max() < NEAR:
            break
        w = w * np.divide(share, chosen, out=np.zeros_like(w), where=chosen > 0)
        w = w / np.maximum(w.sum(1, keepdims=True), 1e-300)
    return np.asarray(w)


def _elementary(w: Array, k: int) -> Array:
    """(k + 1, groups): elementary symmetric polynomials of each group's weights."""
    e = np.zeros((k + 1, len(w)))
    e[0] = 1
    for column in w.T:
        e[1:] += column * e[:-1].copy()
    return e


def _chosen(w: Array, k: int) -> Array:
    """(groups, E): how often each expert is among the k."""
    e = _elementary(w, k)
    without = np.ones_like(w)
    for order in range(1, k):
        without = np.maximum(e[order][:, None] - w * without, 0)
    return np.asarray(w * without / np.maximum(e[k], 1e-300)[:, None])


def _hajek(share: Array, tokens: Array) -> Array:
    """s_i s_j (1 - (1 - s_i)(1 - s_j) / Σ s (1 - s)), for many experts a token (Hájek 1964)."""
    rest = share * (1 - share)
    by = tokens / np.maximum(rest.sum(1), 1e-12)
    found = (tokens[:, None] * share).T @ share - (by[:, None] * rest).T @ rest
    np.fill_diagonal(found, 0)
    return np.maximum(found, 0)


def left_variance(expected: Array, load: Array, tokens: float) -> Array:
    """(E, E): variance of pair counts that the held loads leave, as a share of the binomial one, between .05 and 1.

    `expected` (E, E) and `load` (E,) over all `tokens`. The pair's covariance with the loads is projected on them, these taken
    for independent given their sum (Hájek 1964); exact where loads are even.
    """
    share, pair = np.clip(load / tokens, 1e-12, 1 - 1e-9), np.clip(expected / tokens, 0, 1 - 1e-9)
    odds = (1 - share) / share
    free = share * (1 - share)
    others = np.maximum(free.sum() - free[:, None] - free, 1e-12)
    both = odds[:, None] + odds + (2 - share[:, None] - share) ** 2 / others
    return np.clip(1 - pair * both * (1 - 1 / len(load)) / (1 - pair), 0.05, 1)
