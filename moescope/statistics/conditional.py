"""Conditional mutual information I(E; L | S) in bits, from counts, with permutation nulls and sums by document.

Plug-in: Σ_t log2( n_sle n_s / (n_sl n_se) ) / N over tokens t with stratum s (e.g. the token id), label l and expert e. It is
biased upward, by far where strata are small; labels permuted within their stratum keep every margin and show by how much.
Labels that hold for a whole document or sequence are permuted as wholes, over documents or sequences: their tokens are not
independent; where documents differ in length, labels dealt anew make every label as precise as the next, so that each draw is
scaled by what documents' own spread gives labels as they are, over what it gives those dealt (`_fair`).
Strata in which nothing can differ are counted in N and otherwise left out: they add zero, always.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, sparse

from . import resampling
from .significance import curve_tail
from .studentized import Rates

Ints = np.ndarray
Floats = np.ndarray


@dataclass(frozen=True)
class Labelled:
    """Tokens with a label, in strata: what all routers share. `rows` point into the tokens that were read."""

    rows: Ints
    label: Ints
    stratum: Ints
    document: Ints
    total: Floats  # (documents,): labelled tokens, those that can say nothing included
    permutations: list[Ints]  # label of every row, permuted
    block: Ints | None = None  # the document or sequence of every row, where labels were permuted over these
    home: Ints | None = None  # (blocks,) the label of each
    homes: tuple[Ints, ...] = ()  # the same of every permutation

    @property
    def whole(self) -> bool:
        """Whether labels were permuted over documents or sequences."""
        return self.block is not None

    @property
    def labels(self) -> int:
        """Number of labels."""
        return int(self.label.max()) + 1 if len(self.label) else 0

    @cached_property
    def cells(self) -> list["Cells"]:
        """Strata by label: observed, then of every permutation; all routers share them."""
        return [Cells.of(self.stratum, label, self.labels) for label in (self.label, *self.permutations)]


@dataclass(frozen=True)
class Cells:
    """`cell` (rows,): stratum and label of each row, numbered; `n`, `stratum` (cells,): how many rows, and of which stratum."""

    cell: Ints
    n: Ints
    stratum: Ints

    @classmethod
    def of(cls, stratum: Ints, label: Ints, labels: int) -> "Cells":
        """From stratum and label of every row; `stratum` is numbered from 0 without gaps."""
        code = stratum.astype(np.int64) * labels + label
        if (int(stratum.max(initial=-1)) + 1) * labels > 8 * len(code):  # too many cells that do not occur
            found, cell, n = np.unique(code, return_inverse=True, return_counts=True)
            return cls(cell, n, found // max(labels, 1))
        counted = np.bincount(code)
        (found,) = np.nonzero(counted)
        return cls((np.cumsum(counted > 0) - 1)[code], counted[found], found // max(labels, 1))

    def at(self, rows: Ints) -> "Cells":
        """Of some rows (a mask)."""
        if rows.all():
            return self
        cell = self.cell[rows]
        return Cells(cell, np.bincount(cell, minlength=len(self.n)), self.stratum)


def labelled(label: Ints, stratum: Ints, document: Ints, block: Ints | None, draws: int, seed: int = 0) -> Labelled:
    """`label` (tokens,), −1 where there is none; `stratum`, `document` (tokens,).

    `block` (tokens,) numbers the documents or sequences that each have one label, None where tokens have their own.
    """
    known = label >= 0
    total = np.bincount(document[known], minlength=int(document.max()) + 1 if len(document) else 0).astype(float)
    rows = np.flatnonzero(known & _varies(label, stratum, known, block))
    s, lab = np.unique(stratum[rows], return_inverse=True)[1], label[rows]
    if block is None:
        return Labelled(rows, lab, s, document[rows], total, list(resampling.permuted(lab, draws, seed, within=s)))
    ids, at = np.unique(block[known], return_inverse=True)
    of_block = np.zeros(len(ids), dtype=lab.dtype)
    of_block[at] = label[known]
    home, rng = np.searchsorted(ids, block[rows]), np.random.default_rng(seed)
    homes = tuple(rng.permutation(of_block) for _ in range(draws))
    return Labelled(rows, lab, s, document[rows], total, [new[home] for new in homes], home, of_block, homes)


def _varies(label: Ints, stratum: Ints, known: Ints, block: Ints | None) -> Ints:
    """Whether the token's stratum has two labels (or, where blocks are permuted, two blocks)."""
    what = label if block is None else block
    pairs = np.unique(np.stack([stratum[known], what[known]]), axis=1)
    strata, count = np.unique(pairs[0], return_counts=True)
    return np.isin(stratum, strata[count > 1])


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
    observed = next(points)
    expected, null = np.zeros(len(e)), np.empty(len(tokens.permutations))
    for i, point in enumerate(points):
        null[i] = point.sum() / total.sum()
        expected += point / len(null)
    if tokens.block is not None:
        fair = _fair(tokens, ran, e, s)
        null, expected = null * fair, expected * float((null * fair).mean() / max(null.mean(), 1e-300))
    sums = np.bincount(document, observed - expected, minlength=len(total))
    return Information(float(observed.sum() / total.sum()), null, sums, total)


def _fair(tokens: Labelled, ran: Ints, e: Ints, s: Ints) -> Floats:
    """(draws,): what blocks' own spread adds to the information of labels as they are, over what it adds to those dealt.

    To second order label l adds in stratum s half of c = Σ_ue (x_use − n_us p_se)² / (n_ls p_se) nats, u over its blocks: more
    where it has few tokens. It cannot add more than n_ls times the entropy h of experts, which is approached as
    n h (1 − exp(−c / (2 n h))), and is measured from what it is itself a part n_ls / n_s of. The squares are taken as
    a n_us + b n_us², tokens on their own and blocks that lean, with a and b of all blocks together: which blocks happen to lie
    far off is chance, of which the information's own null knows.
    """
    assert tokens.block is not None
    assert tokens.home is not None
    block, strata = tokens.block[ran].astype(np.int64), int(s.max()) + 1
    n_s, m_se = np.bincount(s, minlength=strata), np.unique(s * (int(e.max()) + 1) + e, return_inverse=True)[1]
    share = np.bincount(m_se)[m_se] / n_s[s]
    _, at, x = np.unique(block * (int(m_se.max()) + 1) + m_se, return_index=True, return_counts=True)
    by = block[at] * strata + s[at]
    n_us = np.bincount(by, x, minlength=len(tokens.home) * strata)
    # Σ_e (x − n p)² / p = Σ_e x² / p − n², cells in which nothing ran included
    spread = np.bincount(by, x**2 / share[at], minlength=len(n_us)) - n_us**2
    spread, size = (v.reshape(-1, strata).astype(float) for v in (spread, n_us))
    parts = np.stack([size.sum(1), (size**2).sum(1)], axis=1)
    own, lean = np.maximum(optimize.nnls(parts, np.maximum(spread.sum(1), 0))[0], 0)
    spread = own * size + lean * size**2
    entropy = np.bincount(s, -np.log(share), minlength=strata) / np.maximum(n_s, 1)

    def noise(home: Ints) -> float:
        hot = sparse.csr_matrix((np.ones(len(home)), (home, np.arange(len(home)))), shape=(tokens.labels, len(home)))
        of, n = hot @ spread, hot @ size
        most = np.maximum(n * entropy, 1e-12)
        added = most * -np.expm1(-np.divide(of, 2 * n * most, out=np.zeros_like(of), where=n > 0))
        return float((added * (1 - n / np.maximum(n_s, 1))).sum())

    dealt = [noise(home) for home in tokens.homes]
    return noise(tokens.home) / np.maximum(dealt, 1e-300)


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
