"""Tokens with a label in strata, and their labels permuted; null of labels that hold for whole documents of unequal length."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import resampling

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
    shuffled: tuple[Ints, ...] = ()  # of whole blocks: label, then each of `permutations`, shuffled within strata, as often

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
        """Strata by label: observed, then of every permutation, then of `shuffled`; all routers share them."""
        every = (self.label, *self.permutations, *self.shuffled)
        return [Cells.of(self.stratum, label, self.labels) for label in every]

    def null(self, values: Floats) -> Floats:
        """(draws, ...) from values (permutations and `shuffled`, ...), in the order of `cells`."""
        if not self.shuffled:
            return values
        dealt, still, moved = values.reshape(3, len(self.permutations), *values.shape[1:])
        return unequal(dealt, moved, still, self.leaning)

    @cached_property
    def leaning(self) -> float:
        """How much of what leaning documents add to dealt labels' information they add to that of the labels as they are.

        Two tokens of a document and stratum add as one over the tokens of their label there where these are many (ratio of the
        sums), and alike where they are few (1): halfway between.
        """
        as_is, *dealt = (self._pairs(label) for label in (self.label, *self.permutations))
        return (1 + as_is / max(float(np.mean(dealt)), 1e-300)) / 2 if any(dealt) else 1.0

    def _pairs(self, label: Ints) -> float:
        """Pairs of tokens of one block and stratum, over the tokens of their label there; less what that is of the stratum."""
        cells = Cells.of(self.stratum, label, self.labels)
        pairs = np.bincount(cells.cell, self._beside, minlength=len(cells.n))
        size = np.bincount(self.stratum)[cells.stratum]
        return float((pairs / cells.n * (1 - cells.n / size)).sum())

    @cached_property
    def _beside(self) -> Ints:
        """(rows,): how many others of the row's block its stratum has."""
        assert self.block is not None
        both = self.block.astype(np.int64) * (int(self.stratum.max(initial=-1)) + 1) + self.stratum
        _, at, n = np.unique(both, return_inverse=True, return_counts=True)
        return np.asarray(n[at] - 1)


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
    draws = max(draws // 2, 2)
    dealt = [rng.permutation(of_block)[home] for _ in range(draws)]
    orders = list(resampling.orders(s, draws, seed))
    shuffled = tuple(new[order] for labels in ([lab] * draws, dealt) for new, order in zip(labels, orders))
    return Labelled(rows, lab, s, document[rows], total, dealt, home, of_block, shuffled)


def unequal(dealt: Floats, moved: Floats, still: Floats, leaning: float) -> Floats:
    """(draws, ...): null of an information of whole documents' labels, where labels differ in number and length of documents.

    `still`: labels as they are, shuffled among the tokens of a stratum, draw by draw: exact where tokens are independent given
    the stratum, whatever the lengths. `dealt`: labels dealt anew to documents, which knows that documents lean, but not the
    lengths; `moved`: those, shuffled in the same way. How much leaning lifts the information is dealt over moved, of the
    same lengths, and `leaning` the part of that which the labels as they are have; so the null's mean is that of `still` so
    lifted. Spread: of dealt less lift times moved, which have the lengths in common, less the shuffling's own; no less than
    that of `still`.
    """
    mean = moved.mean(axis=0)
    lift = np.divide(dealt.mean(axis=0), mean, out=np.ones_like(mean), where=mean > 0)
    off = dealt - lift * moved
    own, found = still.var(axis=0, ddof=1), np.maximum(off.var(axis=0, ddof=1), 1e-300)
    wanted = np.maximum(found - lift**2 * own, own) * (1 + 2 / len(dealt))  # the mean is known by so many draws only
    mean = still.mean(axis=0) * (1 + (lift - 1) * leaning)
    return np.asarray(mean + (off - off.mean(axis=0)) * np.sqrt(wanted / found))


def _varies(label: Ints, stratum: Ints, known: Ints, block: Ints | None) -> Ints:
    """Whether the token's stratum has two labels (or, where blocks are permuted, two blocks)."""
    what = label if block is None else block
    pairs = np.unique(np.stack([stratum[known], what[known]]), axis=1)
    strata, count = np.unique(pairs[0], return_counts=True)
    return np.isin(stratum, strata[count > 1])
