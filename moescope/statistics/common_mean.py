"""What groups of documents would look like if they shared one distribution, each of as many and as long documents as it has."""

import numpy as np

from ._types import Array


def common_draws(counts: Array, home: Array, groups: int, draws: int, seed: int = 0) -> Array:
    """(draws, groups, cells): sums of counts (documents, cells) by group, redrawn about the distribution of all documents.

    `home` (documents,) numbers the groups. Every document is drawn anew as long as it is: its shares lie off those of
    all as those of some document lie off its own group's (a bootstrap under the null, Hall and Wilson 1991), one of n with a
    chance as n; counts are multinomial about these. So a group of few or short documents stays as noisy as it is, which
    dealing documents anew would hide. What documents' shares owe to their shortness is taken out of how far they lie off: with
    the variance p τ + p / n of a share p of n, that is made less by the root of n τ / (1 + n τ). Counts that vary less than
    multinomial ones (k different experts of few) are drawn so. The shares of all are drawn towards even ones by that part of
    their spread which is noise (James and Stein 1961): unevenness by chance would look like what groups have in common.
    """
    counts, rng = np.asarray(counts, dtype=float), np.random.default_rng(seed)
    size = counts.sum(1)
    if not size.sum():
        return np.zeros((draws, groups, counts.shape[1]))
    off, chance = _off(counts, home, groups)
    tau, spread = _leaning(counts, off, chance)
    near = np.maximum(_shares(counts) + np.sqrt(size * tau / (1 + size * tau))[:, None] * off, 0)
    found = np.empty((draws, groups, counts.shape[1]))
    for draw, drawn in enumerate(rng.choice(len(counts), (draws, len(counts)), p=chance / chance.sum())):
        of = np.bincount(home * len(counts) + drawn, size, minlength=groups * len(counts)).reshape(groups, -1)
        total = of.sum(1, keepdims=True)
        mean = of @ near
        mean *= total / np.maximum(mean.sum(1, keepdims=True), 1e-300)
        seen = rng.multinomial(np.rint(total[:, 0]).astype(int), mean / np.maximum(mean.sum(1, keepdims=True), 1e-300))
        found[draw] = mean + (seen - mean) * spread
    return np.maximum(found, 0)


def _off(counts: Array, home: Array, groups: int) -> tuple[Array, Array]:
    """(documents, cells): shares less those of the document's group, as far as they would lie off had it not been one of these;
    and (documents,) the chance to be drawn, none where a document is alone in its group (all alike where all are)."""
    size, hot = counts.sum(1), (home[:, None] == np.arange(groups)).astype(float)
    own, n, many = hot.T @ counts, hot.T @ size, hot.sum(0)
    off = counts / np.maximum(size, 1)[:, None] - (own / np.maximum(n, 1)[:, None])[home]
    wide = np.sqrt(many / np.maximum(many - 1, 1))[home]
    chance = np.where(many[home] > 1, size, 0)
    return off * wide[:, None], chance if chance.any() else size


def _leaning(counts: Array, off: Array, size: Array) -> tuple[float, float]:
    """τ, by which documents' shares vary beyond counting, and the deviation of counts over multinomial ones that vary more."""
    shares = counts.sum(0) / counts.sum()
    some = shares > 0
    seen = float((size[:, None] ** 2 * off[:, some] ** 2 / shares[some]).sum())
    degrees = max(int(some.sum()) - 1, 1)
    wanted = float(size.sum()) * degrees
    return max(seen - wanted, 0.0) / (float((size**2).sum()) * degrees), float(np.sqrt(min(seen / wanted, 1.0)))


def _shares(counts: Array) -> Array:
    """(cells,) shares of all documents, less the noise in their spread."""
    total, n = max(counts.sum(), 1e-300), max(len(counts), 2)
    shares = counts.sum(0) / total
    even = 1 / counts.shape[1]
    noise = n / (n - 1) * ((counts - counts.sum(1, keepdims=True) * shares) ** 2).sum() / total**2
    spread = ((shares - even) ** 2).sum()
    return even + (shares - even) * max(0.0, 1 - noise / max(spread, 1e-300))
