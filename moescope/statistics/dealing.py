"""Values dealt anew to whole documents, for conditions that change within a document as well as for those that do not."""

from collections.abc import Iterator

import numpy as np

from ._types import Array
from .studentized import Grouped, Paired, Rates


def dealt(counts: Array, draws: int, seed: int = 0) -> Array:
    """(draws, values, cells): sums over documents of counts (documents, values, cells) when values are dealt anew.

    What a document has at one value stays whole. First the sets of values are dealt among documents that have equally many (a
    class of the whole document goes to another one), then the values of each document are shuffled among what it has at them
    (timesteps that every document goes through). Load and each document's routing are held; one document alone can show
    nothing, as its table is the same whatever its values are called.
    """
    unit, value = np.nonzero(counts.any(axis=2))
    rows = counts[unit, value].astype(np.float32)
    return np.stack([_summed(new, rows, counts.shape[1]) for new in _values(unit, value, draws, seed)]).astype(float)


def studentized(
    counts: Array, draws: int, seed: int = 0, totals: Array | None = None, binomial: Array | None = None
) -> tuple[Grouped, Grouped]:
    """The same of what `Grouped` takes: observed, and with values dealt anew, a draw a row.

    Rates are of `totals` (documents, values), without them of the sums over cells; for `binomial` see `Rates`.
    """
    n = counts.sum(axis=2) if totals is None else totals
    unit, value = np.nonzero(n)
    rates = Rates(counts[unit, value], n[unit, value], binomial)
    if len(np.unique(unit)) < len(unit):
        rates = Paired(rates.x, rates.n, binomial, unit)
    columns, values = rates.columns, counts.shape[1]
    null = np.stack([_summed(new, columns, values) for new in _values(unit, value, draws, seed)])
    return rates.grouped(_summed(value, columns, values)), rates.grouped(null)


def _summed(value: Array, rows: Array, values: int) -> Array:
    """(values, columns): rows summed by value."""
    return np.asarray((value == np.arange(values)[:, None]).astype(np.float32) @ rows)


def _values(unit: Array, value: Array, draws: int, seed: int) -> Iterator[Array]:
    """The value of every row, dealt anew; `unit` is sorted."""
    rng, groups, new = np.random.default_rng(seed), _alike(unit), value.copy()
    for _ in range(draws):
        for places in groups:
            new[places] = rng.permuted(rng.permutation(value[places], axis=0), axis=1)
        yield new


def _alike(unit: Array) -> list[Array]:
    """Rows of documents with equally many rows: arrays (documents, rows of each); `unit` is sorted."""
    _, start, many = np.unique(unit, return_index=True, return_counts=True)
    return [start[many == m][:, None] + np.arange(m) for m in np.unique(many)]
