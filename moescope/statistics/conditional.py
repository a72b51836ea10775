"""Conditional mutual information I(E; L | S) in bits, from counts, with permutation nulls and sums by document.

Plug-in: Σ_t log2( n_sle n_s / (n_sl n_se) ) / N over tokens t with stratum s (e.g. the token id), label l and expert e. It is
biased upward, by far where strata are small; labels permuted within their stratum keep every margin and show by how much.
Labels that hold for a whole document or sequence are permuted as wholes, over documents or sequences: their tokens are not
independent. Where documents differ in length, labels dealt anew make every label as precise as the next: `labelled.unequal`.
Strata in which nothing can differ are counted in N and otherwise left out: they add zero, always.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .labelled import Cells, Floats, Ints, Labelled
from .significance import curve_tail
from .studentized import Rates


@dataclass(frozen=True)
class Information:
    """Of one router: plug-in value, its null, and what each document adds to the corrected value."""

    plugin: float
    null: Floats
    sums: Floats  # (documents,), bits above the mean null
    total: Floats

    @property
    def value(self) -> float:
        """Plug-in less the mean null."""
        return self.plugin - float(self.null.mean())

    def draws(self, weights: Floats, seed: int = 1) -> Floats:
        """Corrected values with documents drawn `weights` (draws, documents) times, to first order (influence function).

        The spread of the null comes on top: it is what is left where the influence vanishes, as under independence.
        """
        linear = (weights @ self.sums) / np.maximum(weights @ self.total, 1)
        noise = np.random.default_rng(seed).standard_normal(len(weights)) * self.null.std()
        return np.asarray(linear + noise)

    def settled(self, weights: Floats, seed: int = 1) -> Floats:
        """The same, of the spread that the value has (see `resampling.information_interval`), for differences of two."""
        draws, own = self.draws(weights, seed), float(np.var(self.null, ddof=1))
        wide = max(float(draws.var()), 1e-300)
        return np.asarray(self.value + (draws - draws.mean()) * np.sqrt((own + max(wide - 3 * own, 0)) / wide))

    @property
    def p(self) -> float:
        """Upper tail, see `curve_tail`: finer than 1 / permutations."""
        return float(curve_tail(np.asarray(self.plugin), self.null))


def information(tokens: Labelled, expert: Ints) -> Information:
    """I(expert; label | stratum) of one router; `expert` (all tokens,) is the first choice, −1 where none ran."""
    e = expert[tokens.rows]
    ran = e >= 0
    e, s, document = e[ran].astype(np.int64), tokens.stratum[ran], tokens.document[ran]
    total = tokens.total
    if not len(e) or not total.sum():
        return Information(0.0, np.zeros(len(tokens.permutations)), np.zeros(len(total)), total)
    log, margin = _table(len(s)), _log(s)[s] - _log_cells(s, e)
    experts = int(e.max()) + 1
    points = (margin + _pointwise(cells.at(ran), e, experts, log) for cells in tokens.cells)
    observed, draws = next(points), len(tokens.permutations)
    # what is expected of a token: the mean over draws with labels as precise as they are
    expected, values = np.zeros(len(e)), np.empty(len(tokens.cells) - 1)
    used = range(draws, 2 * draws) if tokens.shuffled else range(draws)
    for i, point in enumerate(points):
        values[i] = point.sum() / total.sum()
        if i in used:
            expected += point / draws
    null = tokens.null(values)
    expected *= float(null.mean() / max(values[used].mean(), 1e-300))
    sums = np.bincount(document, observed - expected, minlength=len(total))
    return Information(float(observed.sum() / total.sum()), null, sums, total)


def beyond_stratum(tokens: Labelled, chosen: Ints, experts: int) -> Rates:
    """What whole blocks took of each expert beyond what their strata give, for `chosen` (all tokens, k), −1 for none.

    Counts (blocks, E) of experts less Σ_t m_se / n_s, of so many rows; to be compared between groups of blocks.
    """
    assert tokens.block is not None
    assert tokens.home is not None
    row, rank = np.nonzero((chosen[tokens.rows] >= 0) & (chosen[tokens.rows] < experts))
    expert = chosen[tokens.rows][row, rank].astype(np.int64)
    strata, blocks = int(tokens.stratum.max()) + 1, len(tokens.home)
    ran = np.bincount(tokens.stratum[row] * experts + expert, minlength=strata * experts).reshape(strata, experts)
    share = ran / np.maximum(np.bincount(tokens.stratum, minlength=strata), 1)[:, None]
    taken = np.bincount(tokens.block[row] * experts + expert, minlength=blocks * experts).reshape(blocks, experts)
    of_strata = sparse.csr_matrix((np.ones(len(tokens.block)), (tokens.block, tokens.stratum)), shape=(blocks, strata))
    size = np.asarray(of_strata.sum(1)).ravel()
    within = np.asarray(of_strata.sum(0)).ravel() @ (share * (1 - share)) / max(float(size.sum()), 1)
    return Rates(taken - of_strata @ share, size, within)


def _pointwise(cells: Cells, e: Ints, experts: int, log: Floats) -> Floats:
    """log2 n_sle − log2 n_sl of every token."""
    inner = cells.cell * experts + e
    if len(cells.n) * experts > 8 * len(e):  # too many that do not occur
        inner = np.unique(inner, return_inverse=True)[1]
    return np.asarray(log[np.bincount(inner)[inner]] - log[cells.n][cells.cell])


def _table(n: int) -> Floats:
    return np.log2(np.maximum(np.arange(n + 1), 1))


def _log(s: Ints) -> Floats:
    return np.log2(np.maximum(np.bincount(s), 1))


def _log_cells(s: Ints, e: Ints) -> Floats:
    _, at, count = np.unique(s.astype(np.int64) * (int(e.max()) + 1) + e, return_inverse=True, return_counts=True)
    return np.asarray(np.log2(count)[at])


def label_entropy(tokens: Labelled) -> float:
    """H(L | S) in bits, plug-in, over all labelled tokens."""
    cell = tokens.stratum.astype(np.int64) * tokens.labels + tokens.label
    pairs, count = np.unique(cell, return_counts=True)
    n_s = np.bincount(tokens.stratum)
    return float(np.sum(count * np.log2(n_s[pairs // max(tokens.labels, 1)] / count)) / max(tokens.total.sum(), 1))
